//! One ring: its two queues, and all memory that the kernel may touch on its behalf.
//!
//! The ring owns that memory: [`Leases`] for what is sent, a `Region` for what is received, addresses to connect to.
//! It ends only when the kernel has let go of it: dropping a ring cancels what is under way and waits for the last
//! completion; should one not come, the memory is leaked rather than freed.

use super::buffers::{Buffers, Filled, Region};
use super::flow::Completion;
use super::leases::Leases;
use super::options::Options;
use super::token::{Op, Token};
use crate::sys::bell::Bell;
use crate::sys::endpoint::Endpoint;
use crate::sys::{errno, socket};
use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a ring that is dropped waits for the next of its last completions.
const LAST_COMPLETIONS: Duration = Duration::from_secs(2);

/// How long to wait when an enter has been refused again: longer each time, so that a stop is heard all the same.
const BACK_OFF: Duration = Duration::from_micros(50);
const BACK_OFF_MAX: Duration = Duration::from_millis(10);

/// Completions that are taken at once, and how many of them without looking at the other queue: those whose turn it is
/// have their buffers and answers before more are taken in.
const REAPED_AT_ONCE: usize = 1024;
const PORTION: usize = 64;

/// What a ring did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls of io_uring_enter(2).
    pub enters: u64,
    pub completions: u64,
    /// Times that the completion queue was found to have overflowed. The kernel keeps what did not fit, at a cost.
    pub overflows: u64,
    /// Other system calls, made for what a direct descriptor cannot have done to it.
    pub shutdowns: u64,
    pub closes: u64,
    pub inline_sends: u64,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Done,
    TimedOut,
    /// A signal came.
    Interrupted,
    /// The kernel wants completions to be taken before it does more (EBUSY, EAGAIN).
    Backpressure,
}

/// A ring. It belongs to the thread that made it (SINGLE_ISSUER), and is therefore not `Send`.
#[derive(Debug)]
pub struct Ring {
    pub(super) uring: OwnedUring,
    pub(super) region: Rc<Region>,
    pub(super) leases: Leases,
    pub(super) addresses: HashMap<Endpoint, Box<socket::RawAddress>>,
    /// Entries that found the submission queue full, in groups that must leave together.
    pub(super) backlog: VecDeque<Vec<squeue::Entry>>,
    /// Completions that were taken to make room for others.
    pub(super) early: VecDeque<cqueue::Entry>,
    /// Completions of what was done without the kernel's queue.
    pub(super) done: Vec<Completion>,
    /// Requests whose last completion has not been seen.
    pub(super) in_flight: u64,
    /// Where connections go, by TCP.
    pub(super) remotes: Vec<SocketAddr>,
    /// Some of them could meet themselves.
    pub(super) verify: bool,
    /// Sockets are connected so that closing them sends a reset.
    pub(super) reset_on_close: bool,
    pub(super) ports: (u16, u16),
    pub(super) options: Options,
    pub(super) table: u32,
    pub(super) no_iowait: bool,
    /// Enters in a row that the kernel refused for now.
    pub(super) refused: u32,
    pub(super) setup: Vec<String>,
    /// What a receive of datagrams wants to know of each; the kernel reads it when the request is submitted.
    pub(super) datagram_shape: Option<Box<libc::msghdr>>,
    pub counters: RingCounters,
}

/// The queues, which are closed before anything that the kernel knows through them is freed.
pub(super) struct OwnedUring(pub(super) Option<IoUring>);

impl fmt::Debug for OwnedUring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IoUring")
    }
}

impl Ring {
    pub(super) fn uring(&mut self) -> &mut IoUring {
        // It is taken out only when the ring is dropped.
        self.uring.0.as_mut().expect("the ring is open")
    }

    /// Sockets that its table can hold.
    pub fn table(&self) -> u32 {
        self.table
    }

    /// Completions that fit in its queue.
    pub fn completions_max(&self) -> u32 {
        self.uring.0.as_ref().map_or(0, |uring| uring.params().cq_entries())
    }

    /// The kernel's flags and the options, in words.
    pub fn setup(&self) -> &[String] {
        &self.setup
    }

    /// Takes bytes in, to be sent from.
    pub fn lend(&mut self, bytes: Vec<u8>) -> io::Result<u32> {
        self.leases.lend(bytes).ok_or_else(|| io::Error::other("too many sends at once"))
    }

    /// An empty buffer for [`Ring::lend`].
    pub fn spare(&mut self) -> Vec<u8> {
        self.leases.spare()
    }

    /// Has the bell rung whenever there is work to do for this ring.
    pub(super) fn watch(&mut self, bell: &Bell) -> io::Result<()> {
        self.uring().submitter().register_eventfd(bell.as_fd().as_raw_fd())
    }

    /// Requests whose last completion has not been seen.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether an enter would do anything.
    pub fn has_work(&mut self) -> bool {
        if !self.backlog.is_empty() || !self.done.is_empty() || !self.early.is_empty() {
            return true;
        }
        let queue = self.uring().submission();
        if !queue.is_empty() || queue.taskrun() || queue.cq_overflow() {
            return true;
        }
        drop(queue);
        !self.uring().completion().is_empty()
    }

    /// Puts entries that must leave together into the submission queue. `counted`: their last one has a completion
    /// that must be waited for.
    ///
    /// The entries must point only to memory that this ring holds until that completion: private to this module's
    /// siblings for that reason.
    pub(super) fn push(&mut self, entries: &[squeue::Entry], counted: bool) {
        self.in_flight += u64::from(counted);
        if self.backlog.is_empty() && self.try_push(entries) {
            return;
        }
        self.backlog.push_back(entries.to_vec());
        // Submitting makes room, and may complete as many requests at once: room is made for them too.
        let uring = self.uring.0.as_mut().expect("the ring is open");
        self.early.extend(uring.completion());
        // What goes wrong here goes wrong again at the next wait, which tells.
        let _ = self.submit();
        self.push_backlog();
    }

    fn try_push(&mut self, entries: &[squeue::Entry]) -> bool {
        let mut queue = self.uring().submission();
        if queue.capacity() - queue.len() < entries.len() {
            return false;
        }
        for entry in entries {
            // SAFETY: the callers of `push` put only pointers to memory into entries that this ring holds until the
            // completion of the request has been seen, or that is static.
            unsafe { queue.push(entry) }.expect("there is room");
        }
        true
    }

    fn push_backlog(&mut self) {
        while let Some(group) = self.backlog.pop_front() {
            if !self.try_push(&group) {
                return self.backlog.push_front(group);
            }
        }
    }

    fn submit(&mut self) -> io::Result<usize> {
        self.counters.enters += 1;
        let polled = self.options.sqpoll_idle_ms.is_some();
        let uring = self.uring();
        if polled {
            // Only woken: to wait until it has made room (IORING_ENTER_SQ_WAIT) has no timeout, and no end where the
            // thread does not run. What finds no room leaves with an enter.
            return uring.submit();
        }
        let len = uring.submission().len() as u32;
        // SAFETY: no argument is passed, and what the entries point to is held (see `push`).
        unsafe { uring.submitter().enter::<libc::sigset_t>(len, 0, 0, None) }
    }

    /// Submits what was asked for, and waits until there are `want` completions or the time is over.
    pub fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<Wait> {
        self.push_backlog();
        if self.options.sqpoll_idle_ms.is_some() && !self.backlog.is_empty() {
            // The thread may need this CPU to make room.
            std::thread::sleep(BACK_OFF);
            self.push_backlog();
        }
        let nothing_here = self.done.is_empty() && self.early.is_empty() && self.backlog.is_empty();
        let want = if nothing_here { want } else { 0 };
        let time = timeout.map(|t| Timespec::new().sec(t.as_secs()).nsec(t.subsec_nanos()));
        let mut args = SubmitArgs::new();
        if let Some(time) = &time {
            args = args.timespec(time);
        }
        let min_wait_us = self.options.min_wait_us;
        let want = if min_wait_us > 0 && want > 0 {
            args = args.min_wait_usec(min_wait_us);
            self.options.submissions
        } else {
            want
        };
        self.counters.enters += 1;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if self.no_iowait {
            flags |= EnterFlags::NO_IOWAIT;
        }
        let polled = self.options.sqpoll_idle_ms.is_some();
        let uring = self.uring();
        let queue = uring.submission();
        // The thread is woken only for something: it stays awake for a while each time.
        if polled && !queue.is_empty() && queue.need_wakeup() {
            flags |= EnterFlags::SQ_WAKEUP;
        }
        let len = queue.len() as u32;
        drop(queue);
        // SAFETY: EXT_ARG says that the argument is an io_uring_getevents_arg, which SubmitArgs is (transparently); it
        // and the time it points to live until the call returns.
        let outcome = unsafe { uring.submitter().enter(len, want, flags.bits(), Some(&args)) };
        let refused = std::mem::take(&mut self.refused);
        match outcome {
            Ok(_) => Ok(Wait::Done),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME) => Ok(Wait::TimedOut),
                Some(libc::EINTR) => Ok(Wait::Interrupted),
                Some(libc::EBUSY | libc::EAGAIN) => {
                    // The first time it wants completions to be taken. When that did not help it lacks memory, and
                    // asking again at once would take the CPU that could mend it.
                    self.refused = refused + 1;
                    if refused > 0 {
                        std::thread::sleep((BACK_OFF * (1 << refused.min(8))).min(BACK_OFF_MAX));
                    }
                    Ok(Wait::Backpressure)
                }
                Some(libc::EBADR) => {
                    Err(io::Error::other("io_uring: completions were lost for want of memory (EBADR)"))
                }
                _ => Err(error),
            },
        }
    }

    /// Takes completions that are here, a bounded number of them: what more there are keeps the next enter from
    /// waiting.
    pub fn reap(&mut self, buffers: &mut Buffers, mut tell: impl FnMut(Completion)) {
        debug_assert!(Rc::ptr_eq(&self.region, buffers.region()), "a ring has its own buffers");
        self.done.drain(..).for_each(&mut tell);
        let overflowed = self.uring().submission().cq_overflow();
        self.counters.overflows += u64::from(overflowed);
        let mut left = REAPED_AT_ONCE;
        while left > 0
            && let Some(entry) = self.early.pop_front()
        {
            left -= 1;
            self.counters.completions += 1;
            if let Some(completion) = self.understand(&entry, buffers) {
                tell(completion);
            }
        }
        // In portions, since what a completion asks for (`second_step`) goes into the other queue.
        let mut portion = [const { MaybeUninit::uninit() }; PORTION];
        while left > 0 {
            let most = left.min(PORTION);
            let entries = self.uring().completion().fill(&mut portion[..most]);
            left = if entries.len() < most { 0 } else { left - most };
            self.counters.completions += entries.len() as u64;
            for entry in &*entries {
                if let Some(completion) = self.understand(entry, buffers) {
                    tell(completion);
                }
            }
        }
    }

    /// Books a completion; `None`: it is not for others.
    fn understand(&mut self, entry: &cqueue::Entry, buffers: &mut Buffers) -> Option<Completion> {
        let (token, result, flags) = (Token(entry.user_data()), entry.result(), entry.flags());
        let (more, notice) = (cqueue::more(flags), cqueue::notif(flags));
        let op = token.op()?;
        if matches!(op, Op::Cancel | Op::Close) {
            // Told only when it fails: what was to be cancelled had ended by itself, or the table was empty there.
            return None;
        }
        self.in_flight -= u64::from(!more);
        if matches!(op, Op::Send | Op::SendTo) && !more {
            self.leases.end(token.lease());
        }
        let filled = self.filled(result, flags, buffers);
        let completion = Completion { token, result, more, notice, filled };
        match op {
            Op::Connect if result >= 0 && self.verify => {
                self.second_step(Token::new(Op::Verify, token.generation(), token.slot()));
                None
            }
            Op::Verify => Some(self.verified(completion)),
            Op::EndStream => Some(self.stream_ended(completion)),
            _ => Some(completion),
        }
    }

    fn filled(&mut self, result: i32, flags: u32, buffers: &mut Buffers) -> Option<Filled> {
        let buffer = cqueue::buffer_select(flags)?;
        // With an error the flag is not to be believed (liburing issue 1530): the buffer stays where it is.
        let len = u32::try_from(result).ok().filter(|len| *len > 0)?;
        let filled = buffers.take(buffer, len, cqueue::buffer_more(flags));
        debug_assert!(filled.is_some(), "the kernel filled a buffer that it does not have");
        filled
    }

    /// Has a direct descriptor made an ordinary one for a moment, so that it can be asked what only those can.
    pub(super) fn second_step(&mut self, token: Token) {
        let entry = opcode::FixedFdInstall::new(io_uring::types::Fixed(token.slot()), 0).build();
        self.push(&[entry.user_data(token.0)], true);
    }

    /// The descriptor that an install completed with; it is closed when dropped.
    fn installed(&mut self, result: i32) -> io::Result<OwnedFd> {
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        self.counters.closes += 1;
        // SAFETY: the kernel made this descriptor for us just now, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(result) })
    }

    /// A connection that might be one with itself has been made an ordinary descriptor: is it?
    fn verified(&mut self, completion: Completion) -> Completion {
        let Completion { token, result, .. } = completion;
        let outcome = self.installed(result).and_then(|fd| socket::connect_outcome(fd.as_fd(), &self.remotes));
        let token = Token::new(Op::Connect, token.generation(), token.slot());
        let result = errno::result_of(outcome.map(|()| 0), libc::ECONNREFUSED);
        Completion { token, result, ..completion }
    }

    fn stream_ended(&mut self, completion: Completion) -> Completion {
        self.counters.shutdowns += 1;
        let outcome = self.installed(completion.result).and_then(|fd| socket::end_stream(fd.as_fd()));
        let result = errno::result_of(outcome.map(|()| 0), libc::EIO);
        Completion { result, ..completion }
    }

    /// Cancels everything and waits for the last completions. Says whether all came.
    fn wind_up(&mut self) -> bool {
        let all = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        self.push(&[all.user_data(Token::new(Op::Cancel, 0, 0).0)], false);
        let (mut left, mut moved) = (self.in_flight, Instant::now());
        while self.in_flight > 0 || !self.backlog.is_empty() {
            if self.in_flight != left {
                (left, moved) = (self.in_flight, Instant::now());
            }
            if moved.elapsed() > LAST_COMPLETIONS || self.enter(1, Some(Duration::from_millis(10))).is_err() {
                return false;
            }
            let mut entries = Vec::from(std::mem::take(&mut self.early));
            entries.extend(self.uring().completion());
            for entry in entries {
                self.let_go(&entry);
            }
        }
        true
    }

    /// A completion that nobody hears of any more.
    fn let_go(&mut self, entry: &cqueue::Entry) {
        let token = Token(entry.user_data());
        match token.op() {
            None | Some(Op::Cancel | Op::Close) => return,
            Some(Op::Verify | Op::EndStream) => drop(self.installed(entry.result())),
            // An ordinary descriptor that was accepted and that nobody has.
            Some(Op::Accept) if self.options.inline_send => drop(self.installed(entry.result())),
            Some(_) => {}
        }
        if !cqueue::more(entry.flags()) {
            self.in_flight -= 1;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let quiet = self.wind_up();
        drop(self.uring.0.take());
        if !quiet {
            // The kernel may still read from the one and write to the other: better lost than freed.
            std::mem::forget(std::mem::take(&mut self.leases));
            std::mem::forget(Rc::clone(&self.region));
            std::mem::forget(self.datagram_shape.take());
        }
    }
}
