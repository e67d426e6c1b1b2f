//! What makes requests due: one of four cases, each in a file. A case is told what became of a connection, and asks it
//! for requests; which connection carries what, and what it costs, is none of its business.
//!
//! - Closed: the reply before it makes a request due, on the same connection.
//! - Turns: likewise, with fewer requests under way than there are connections.
//! - Paced: a schedule that waits for nobody (open loop).
//! - Users: somebody asks one thing after the other, and thinks in between; they are as many as connections, or come by
//!   a schedule.

mod paced;
mod sessions;
mod thinking;
mod turns;
mod users;

use super::config::Config;
use super::connections::Connections;
use crate::engine::Io;
use crate::time::Instant;
use paced::Paced;
use turns::Turns;
use users::Users;

#[derive(Debug)]
pub(super) enum Demand {
    Closed,
    Turns(Turns),
    Paced(Paced),
    Users(Users),
}

impl Demand {
    pub(super) fn new(config: &Config) -> Self {
        if let Some(most) = config.in_flight_max {
            Self::Turns(Turns::new(most))
        } else if config.traffic.sessions.is_some() || config.schedules.is_empty() && config.traffic.thinks() {
            Self::Users(Users::new(config))
        } else if !config.schedules.is_empty() {
            Self::Paced(Paced::new(config))
        } else {
            Self::Closed
        }
    }

    fn paced(&self) -> Option<&Paced> {
        match self {
            Self::Paced(paced) => Some(paced),
            Self::Users(users) => users.arrivals(),
            Self::Closed | Self::Turns(_) => None,
        }
    }

    fn paced_mut(&mut self) -> Option<&mut Paced> {
        match self {
            Self::Paced(paced) => Some(paced),
            Self::Users(users) => users.arrivals_mut(),
            Self::Closed | Self::Turns(_) => None,
        }
    }

    /// Whether connections take turns, so that they do not all begin with the load.
    pub(super) fn takes_turns(&self) -> bool {
        matches!(self, Self::Turns(_))
    }

    /// The load begins: a schedule counts from `at`, and ends where the window does.
    pub(super) fn begin(&mut self, on: &mut Connections, at: Instant, ends: Instant) {
        if let Some(paced) = self.paced_mut() {
            paced.begin(on, at, ends);
        }
    }

    /// No request that is due later will be sent.
    pub(super) fn end(&mut self, on: &mut Connections, now: Instant) {
        if let Some(paced) = self.paced_mut() {
            paced.end(on, now);
        }
    }

    /// The load begins on a connection that was opened before.
    pub(super) fn start(&mut self, on: &mut Connections, io: &mut impl Io, slot: u32, now: Instant) -> Start {
        match self {
            Self::Paced(paced) => paced.start(on, slot),
            Self::Users(users) => return users.start(on, io, slot, now),
            Self::Closed => on.begins_late(slot, now),
            Self::Turns(_) => {}
        }
        Start::GoesOn
    }

    /// Within the load, a connection has been opened, and nothing is due on it.
    pub(super) fn opened(&mut self, on: &mut Connections, io: &mut impl Io, slot: u32, now: Instant) {
        match self {
            Self::Closed | Self::Turns(_) => on.begin(io, slot, now),
            Self::Paced(paced) => paced.opened(on, io, slot, now),
            Self::Users(users) => users.opened(on, io, slot, now),
        }
    }

    /// A request of a connection has ended, or it may carry more.
    #[inline]
    pub(super) fn ended(&mut self, on: &mut Connections, io: &mut impl Io, slot: u32, now: Instant) {
        match self {
            Self::Closed => on.fill_up(io, slot, now),
            Self::Turns(turns) => turns.take(on, io, now),
            Self::Paced(paced) => paced.ended(on, io, slot, now),
            Self::Users(users) => users.ended(on, io, slot, now),
        }
    }

    /// A connection was closed in good order behind a reply. In a closed loop the next request is due the moment that
    /// this arrived, also when a new connection must be opened for it first: that is then part of its response time.
    pub(super) fn closed(&mut self, on: &mut Connections, slot: u32, now: Instant) {
        match self {
            Self::Closed | Self::Turns(_) => {
                on.leave_script(slot);
                on.owe(slot, now);
            }
            Self::Paced(_) => {}
            Self::Users(users) => users.closed(on, slot, now),
        }
    }

    /// A connection was lost, with all that was on it.
    pub(super) fn lost(&mut self, on: &mut Connections, slot: u32) {
        if let Self::Users(users) = self {
            users.lost(on, slot);
        }
    }

    /// Whether a connection that is closed will be needed before somebody asks for it.
    pub(super) fn wants(&mut self, on: &mut Connections, slot: u32, now: Instant) -> bool {
        match self {
            Self::Users(users) => users.wants(on, slot, now),
            Self::Closed | Self::Turns(_) | Self::Paced(_) => true,
        }
    }

    /// Whether somebody uses a connection across its being opened anew.
    pub(super) fn is_used(&self, slot: u32) -> bool {
        matches!(self, Self::Users(users) if users.is_used(slot))
    }

    /// Asks for what is due by now.
    pub(super) fn due(&mut self, on: &mut Connections, io: &mut impl Io, now: Instant) {
        match self {
            Self::Closed => {}
            Self::Turns(turns) => turns.take(on, io, now),
            Self::Paced(paced) => paced.issue_due(on, io, now),
            Self::Users(users) => users.due(on, io, now),
        }
    }

    /// The load stops: what was due before that, and had not been looked at, is sent as if we had been in time.
    pub(super) fn last(&mut self, on: &mut Connections, io: &mut impl Io, now: Instant) {
        match self {
            Self::Closed | Self::Turns(_) => {}
            Self::Paced(paced) => paced.issue_due(on, io, now),
            Self::Users(users) => users.last(on, io, now),
        }
    }

    /// The window of a closed loop closes at `at`: what was due before that is booked, and as unsent.
    pub(super) fn owe_until(&mut self, on: &mut Connections, at: Instant) {
        if let Self::Users(users) = self {
            users.owe_until(on, at);
        }
    }

    /// When the next request can leave: when it is due, if there is a connection for it.
    pub(super) fn next_issue(&self) -> Instant {
        self.paced().map_or(Instant::NEVER, Paced::next)
    }

    /// When [`Demand::due`] is next needed.
    pub(super) fn next(&self) -> Instant {
        let issue = self.next_issue();
        if let Self::Users(users) = self { issue.min(users.next_wake()) } else { issue }
    }

    /// The engine will wait until `expected` at most.
    pub(super) fn waits_until(&mut self, expected: Instant) {
        if let Some(paced) = self.paced_mut() {
            paced.waits_until(expected);
        }
    }

    /// This thread stood still.
    pub(super) fn stood_still(&mut self, from: Instant, to: Instant) {
        if let Some(paced) = self.paced_mut() {
            paced.stood_still(from, to);
        }
    }

    /// The run is over: books what was due and never left, because every connection was busy until the end, and users
    /// who are still there.
    pub(super) fn close(&mut self, on: &mut Connections, now: Instant) {
        let has_sessions = matches!(self, Self::Users(_));
        if let Some(paced) = self.paced_mut() {
            paced.book_unsent(on, has_sessions);
        }
        if let Self::Users(users) = self {
            users.close(on, now);
        }
    }
}

/// How the load begins on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// As behind a reply.
    GoesOn,
    /// Its user thinks first.
    Thinks,
}
