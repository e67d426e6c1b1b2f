//! The readiness loop: wait, let each connection that is ready have its turn, accept. One loop for all pollers, level-
//! and edge-triggered.

use super::lingering::Lingering;
use super::releases::Releases;
use super::{LISTENER, LOOK_EVERY, Worker, wait_until};
use crate::acceptor::{Accepted, Acceptor, BURST};
use crate::cause::Cause;
use crate::connection::{Connection, Shared, Turn};
use crate::deadlines::{Sweep, most_due};
use crate::delayed::DelayedReplies;
use crate::serve::tell;
use crate::slab::Slab;
use crate::stats::Counters;
use crate::tls_connection::Keys;
use loadgen_core::protocol::Shape;
use loadgen_core::sys::clock;
use loadgen_core::sys::poller::{Event, Interest, Poller};
use loadgen_core::time::Instant;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Serves until told to stop and every connection has ended.
pub(super) fn run<P: Poller>(worker: Worker) -> io::Result<Counters> {
    if worker.transport.has_messages() {
        return super::datagrams::readiness::run::<P>(worker);
    }
    let Worker { listener, protocol, shape, drain, signals, ready, injector, tls, deadlines, .. } = worker;
    let mut poller = P::new()?;
    let acceptor = Acceptor::new(listener);
    poller.add(acceptor.fd(), LISTENER, Interest::READ)?;
    let mut readiness = Readiness {
        poller,
        acceptor: Some(acceptor),
        slab: Slab::default(),
        shared: Shared::new(protocol, shape, injector, tls.map(|settings| Box::new(Keys::new(settings)))),
        ready: Vec::new(),
        releases: Releases::new(),
        lingering: Lingering::new(),
        sweep: Sweep::new(deadlines),
        signals,
        drain,
        drain_until: None,
    };
    // Nobody listens where another thread has failed to start.
    let _ = ready.send(());
    drop(ready);
    readiness.serve()?;
    readiness.shared.counters.poller = readiness.poller.calls();
    readiness.releases.add_to(&mut readiness.shared.counters);
    Ok(readiness.shared.counters)
}

#[derive(Debug)]
struct Readiness<P> {
    poller: P,
    /// `None` once draining has begun.
    acceptor: Option<Acceptor>,
    slab: Slab,
    shared: Shared,
    /// Connections that spent their budget: they go on in the next turn, whatever the poller says.
    ready: Vec<u64>,
    /// Connections whose replies wait for their release.
    releases: Releases<u64>,
    /// Connections that wait for the end of the peer's stream.
    lingering: Lingering<u64>,
    /// Looks after deadlines.
    sweep: Sweep,
    signals: Arc<AtomicUsize>,
    drain: Duration,
    drain_until: Option<Instant>,
}

impl<P: Poller> Readiness<P> {
    fn serve(&mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(512);
        let mut ready = Vec::new();
        let mut turns = 0u32;
        while self.drain_until.is_none() || self.slab.len() > 0 {
            let timeout = self.timeout();
            self.poller.wait(&mut events, Some(timeout))?;
            self.shared.counters.waited(events.len());
            std::mem::swap(&mut ready, &mut self.ready);
            for event in &events {
                self.handle(*event);
            }
            for token in ready.drain(..) {
                if let Some(connection) = self.slab.get(token) {
                    connection.queued = false;
                    self.turn(token);
                }
            }
            while let Some(token) = self.releases.next() {
                if self.slab.get(token).is_some_and(|connection| !connection.queued) {
                    self.turn(token);
                }
            }
            self.accept()?;
            self.look_at_the_clock()?;
            turns = turns.wrapping_add(1);
            if events.is_empty() || turns.is_multiple_of(LOOK_EVERY) {
                self.look_after_deadlines();
            }
        }
        Ok(())
    }

    fn timeout(&mut self) -> Duration {
        let paused_until = self.acceptor.as_ref().and_then(|acceptor| acceptor.paused_until);
        let more = self.acceptor.as_ref().is_some_and(|acceptor| acceptor.more) && paused_until.is_none();
        if more || !self.ready.is_empty() {
            return Duration::ZERO;
        }
        let timed = wait_until([paused_until, self.lingering.next(), self.drain_until]);
        timed.min(self.sweep.longest_wait()).min(self.releases.timeout())
    }

    fn handle(&mut self, event: Event) {
        if event.token == LISTENER {
            if let Some(acceptor) = &mut self.acceptor {
                acceptor.more = true;
            }
            return;
        }
        let Some(connection) = self.slab.get(event.token) else {
            self.shared.counters.stale_events += 1;
            return;
        };
        // Who is on the ready list has its turn there.
        if connection.note(event) && !connection.queued {
            self.turn(event.token);
        }
    }

    fn turn(&mut self, token: u64) {
        let Some(connection) = self.slab.get(token) else { return };
        let lingered = connection.is_lingering();
        match connection.turn(&mut self.shared) {
            Turn::Closed(cause) => return self.close(token, cause),
            Turn::Again => {
                connection.queued = true;
                self.ready.push(token);
            }
            Turn::Wait(interest) => {
                if !P::EDGE && connection.interest != interest {
                    connection.interest = interest;
                    if self.poller.modify(connection.fd(), token, interest).is_err() {
                        return self.close(token, Cause::Error);
                    }
                }
            }
        }
        if let Some(release) = connection.next_release() {
            self.releases.push(release, token);
        }
        if connection.is_lingering() && !lingered {
            match self.drain_until {
                None => self.lingering.push(clock::now(), token),
                Some(_) if connection.is_quiet() => self.lingering.push_quiet(clock::now(), token),
                Some(_) => {}
            }
        }
    }

    fn close(&mut self, token: u64, cause: Cause) {
        if let Some(connection) = self.slab.remove(token) {
            self.poller.forget(connection.fd());
            connection.close(cause, &mut self.shared);
        }
    }

    /// Takes in what waits to be accepted, up to a burst.
    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..BURST {
            let Some(acceptor) = &mut self.acceptor else { return Ok(()) };
            if !acceptor.more || acceptor.paused_until.is_some() {
                return Ok(());
            }
            match acceptor.accept(&mut self.shared.counters) {
                Accepted::Taken(socket) => self.admit(socket),
                Accepted::Empty => acceptor.more = false,
                Accepted::Failed => {}
                Accepted::Exhausted(error) => self.without_descriptors(&error)?,
                Accepted::Lacking(error) => {
                    let now = clock::now();
                    acceptor.complain(&error, now);
                    acceptor.back_off(now);
                    self.poller.modify(acceptor.fd(), LISTENER, Interest::NONE)?;
                }
            }
        }
        Ok(())
    }

    /// Somebody makes room, or who waits is turned away.
    fn without_descriptors(&mut self, error: &io::Error) -> io::Result<()> {
        if self.make_room() {
            return Ok(());
        }
        let Some(acceptor) = &mut self.acceptor else { return Ok(()) };
        let now = clock::now();
        acceptor.turn_away(&mut self.shared.counters);
        acceptor.complain(error, now);
        acceptor.pause(now);
        self.poller.modify(acceptor.fd(), LISTENER, Interest::NONE)
    }

    fn admit(&mut self, socket: OwnedFd) {
        let speaks_first = self.shared.shape == Shape::Download;
        let delayed = self.shared.injector.as_ref().map(|injector| Box::new(DelayedReplies::new(injector)));
        let tls = self.shared.keys.as_ref().and_then(|keys| keys.accept());
        let connection = Connection::new(socket, speaks_first, delayed, tls);
        let token = self.slab.insert(connection, self.sweep.now_ms());
        let Some(connection) = self.slab.get(token) else { return };
        match self.poller.add(connection.fd(), token, Interest::READ) {
            Ok(()) => {
                self.shared.counters.accepts += 1;
                if speaks_first && self.shared.keys.is_none() {
                    connection.queued = true;
                    self.ready.push(token);
                }
            }
            Err(error) => {
                let connection = self.slab.remove(token);
                if let (Some(acceptor), Some(connection)) = (&mut self.acceptor, connection) {
                    acceptor.complain(&error, clock::now());
                    acceptor.reject(connection.into_socket(), &mut self.shared.counters);
                }
            }
        }
    }

    fn look_at_the_clock(&mut self) -> io::Result<()> {
        let signals = self.signals.load(Ordering::Relaxed);
        let idle = self.acceptor.as_ref().is_some_and(|acceptor| acceptor.paused_until.is_none());
        if signals == 0 && idle && self.lingering.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        self.resume(now)?;
        while let Some(token) = self.lingering.pop(now) {
            self.stop_lingering(token);
        }
        match self.drain_until {
            None if signals > 0 => self.begin_drain(now),
            Some(then) if now >= then => self.cut("drain timeout"),
            Some(_) if signals > 1 => self.cut("second signal"),
            _ => {}
        }
        Ok(())
    }

    /// Closes who has taken too long over what it does.
    fn look_after_deadlines(&mut self) {
        self.sweep.advance(clock::now());
        for index in self.sweep.slots(self.slab.slots()) {
            let Some((token, connection, since)) = self.slab.at(index) else { continue };
            let awaits = connection.awaits(&self.shared);
            if let Some(cause) = self.sweep.look(awaits, &mut connection.signs, since) {
                self.close(token, cause);
            }
        }
    }

    /// Closes those who have been silent for longest, so that others can come in; false: nobody has been for long.
    fn make_room(&mut self) -> bool {
        self.sweep.advance(clock::now());
        let mut due = Vec::new();
        for index in 0..self.slab.slots() {
            let Some((token, connection, since)) = self.slab.at(index) else { continue };
            let awaits = connection.awaits(&self.shared);
            due.extend(self.sweep.due_to_go(awaits, connection.signs, *since).map(|due| (due, token)));
        }
        let leaving = most_due(due);
        leaving.iter().for_each(|token| self.close(*token, Cause::MadeRoom));
        !leaving.is_empty()
    }

    /// Accepts again once a pause is over.
    fn resume(&mut self, now: Instant) -> io::Result<()> {
        if let Some(acceptor) = &mut self.acceptor
            && acceptor.paused_until.is_some_and(|then| then <= now)
        {
            acceptor.paused_until = None;
            acceptor.more = true;
            self.poller.modify(acceptor.fd(), LISTENER, Interest::READ)?;
        }
        Ok(())
    }

    fn stop_lingering(&mut self, token: u64) {
        if let Some(cause) = self.slab.get(token).and_then(|connection| connection.lingered()) {
            self.close(token, cause);
        }
    }

    /// Nobody new; what has been received is answered; then each connection ends its stream and waits for the peer's.
    fn begin_drain(&mut self, now: Instant) {
        if let Some(acceptor) = self.acceptor.take() {
            self.poller.forget(acceptor.fd());
            self.shared.counters.calls.close += 1;
        }
        self.drain_until = Some(now.after(self.drain.as_nanos().try_into().unwrap_or(u64::MAX)));
        let tokens: Vec<u64> = self.slab.tokens().collect();
        for token in tokens {
            if let Some(connection) = self.slab.get(token) {
                connection.drain(&self.shared);
                if !connection.queued {
                    connection.queued = true;
                    self.ready.push(token);
                }
            }
        }
    }

    fn cut(&mut self, why: &str) {
        let tokens: Vec<u64> = self.slab.tokens().collect();
        if !tokens.is_empty() {
            tell(format_args!("{why}: {} connections cut", tokens.len()));
        }
        for token in tokens {
            self.close(token, Cause::Cut);
        }
    }
}
