//! How long a peer may take over what it has begun, and who has to go when there is no room for others. No clock: the
//! engine tells the time, and what each connection awaits.
//!
//! A request costs one `or` of a byte (`Signs`). Nothing is queued and no timer is set: connections are looked at in
//! turns, all of them eight times within the shortest deadline. A look that finds what it found before lets time pass;
//! one that finds another state, or signs of progress, begins it anew. So a deadline is up to an eighth of the shortest
//! one late, and never early.

use crate::cause::Cause;
use loadgen_core::protocol::Shape;
use loadgen_core::time::{Instant, NS_PER_MS};
use loadgen_core::units;
use std::ops::Range;
use std::time::Duration;

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaits {
    /// That its peer says anything at all.
    First,
    /// The end of a TLS handshake.
    Handshake,
    /// The end of a request's head, or of a short request.
    Head,
    /// The end of a request whose head has been understood.
    Body,
    /// That its peer reads what was sent.
    Unread,
    /// Another request.
    Next,
    /// Nothing that its peer owes us: a reply that is delayed, or our own turn.
    Nothing,
}

const STATES: [Awaits; 7] =
    [Awaits::First, Awaits::Handshake, Awaits::Head, Awaits::Body, Awaits::Unread, Awaits::Next, Awaits::Nothing];

impl Awaits {
    /// What a connection awaits that has nothing to say. `within`: it is within a request, of which nothing is `kept`
    /// to be shown again.
    pub(crate) fn of(shape: Shape, within: bool, kept: bool, signs: Signs) -> Self {
        match shape {
            // What it sends are no requests, and it may say nothing for as long as it likes.
            Shape::Upload => Self::Next,
            // It gets more as long as it reads.
            Shape::Download => Self::Unread,
            _ if within => Self::Body,
            _ if kept => Self::Head,
            _ if signs.is_known() => Self::Next,
            _ => Self::First,
        }
    }
}

/// The words of `--deadlines`, in the order of [`STATES`], and what holds where nothing is said (docs/server.md).
const WORDS: [(&str, u64); 6] = [
    ("first", 6 * 3600 * 1000),
    ("handshake", 60 * 1000),
    ("head", 60 * 1000),
    ("body", 600 * 1000),
    ("unread", 300 * 1000),
    ("idle", 24 * 3600 * 1000),
];
const CAUSES: [Cause; 6] =
    [Cause::LateFirst, Cause::LateHandshake, Cause::LateHead, Cause::LateBody, Cause::LateReader, Cause::LateNext];
/// Without descriptors: how long each may be silent before it has to make room. Who has been understood before is given
/// more.
const GRACE_MS: [u32; 6] = [500, 500, 500, 1000, 1000, 2000];
/// Likewise for one that drips a head or a handshake byte by byte, which its bytes do not excuse: both are short.
const DRIP_GRACE_MS: u32 = 1500;
/// So many make room at once.
const MAKE_ROOM: usize = 8;
/// The longest step of our clock: a server that was stopped for a minute does not hold that against its peers.
const STEP_MS_MAX: u64 = 1000;
const LOOKS: u32 = 8;
const PERIOD_MS_MAX: u32 = 10_000;
/// So few are looked at more often, so that it is known who is silent when descriptors run out.
const FEW: usize = 1 << 16;
const PERIOD_MS_OF_FEW: u32 = 500;
const NEVER: u32 = u32::MAX;

/// The deadlines of all connections, in milliseconds; `NEVER`: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines([u32; 6]);

impl Default for Deadlines {
    fn default() -> Self {
        Self(WORDS.map(|(_, ms)| ms as u32))
    }
}

impl Deadlines {
    /// Reads `head=10s,idle=off`, or `off` for all; what is not named keeps its default.
    ///
    /// # Errors
    /// One line that says which word is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut deadlines = Self::default();
        if text == "off" {
            return Ok(Self([NEVER; 6]));
        }
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let known = || WORDS.map(|(word, _)| word).join(", ");
            let (word, value) =
                part.split_once('=').ok_or_else(|| format!("{part}: give NAME=TIME, as in head=60s"))?;
            let index = WORDS.iter().position(|(known, _)| *known == word);
            let index = index.ok_or_else(|| format!("no deadline is called {word}; there are {}", known()))?;
            deadlines.0[index] = if value == "off" || value == "0" { NEVER } else { milliseconds(word, value)? };
        }
        Ok(deadlines)
    }
}

fn milliseconds(word: &str, value: &str) -> Result<u32, String> {
    const LONGEST_MS: u64 = 30 * 24 * 3600 * 1000;
    let ms = units::parse_duration_ns(value).map_err(|error| format!("{word}: {error}"))? / NS_PER_MS;
    if (10..=LONGEST_MS).contains(&ms) {
        Ok(ms as u32)
    } else {
        Err(format!("{word}={value}: give 10ms to 720h, or `off`"))
    }
}

/// What a connection has shown since it was looked at, and what it awaited then: one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signs(u8);

const HEARD: u8 = 1;
const SENT: u8 = 2;
const ASKED: u8 = 4;
/// Has asked at any time.
const KNOWN: u8 = 8;
const FRESH: u8 = HEARD | SENT | ASKED;
const STATE_SHIFT: u32 = 4;
/// Any of [`FRESH`] at the look before.
const FRESH_BEFORE: u8 = 128;

impl Signs {
    /// Of a new connection.
    pub(crate) fn new(encrypted: bool) -> Self {
        let awaits = if encrypted { Awaits::Handshake } else { Awaits::First };
        Self((awaits as u8) << STATE_SHIFT)
    }

    /// Bytes arrived, and with them the end of so many requests.
    pub(crate) fn heard(&mut self, requests: u64) {
        self.0 |= if requests > 0 { HEARD | ASKED | KNOWN } else { HEARD };
    }

    /// The kernel took bytes to be sent.
    pub(crate) fn sent(&mut self) {
        self.0 |= SENT;
    }

    /// It has asked for something before.
    pub(crate) fn is_known(self) -> bool {
        self.0 & KNOWN != 0
    }

    /// Whether time goes on for a connection that awaits this now; remembers it.
    fn stands_still(&mut self, awaits: Awaits) -> bool {
        let progress = match awaits {
            Awaits::Unread => SENT,
            Awaits::Next => ASKED | HEARD,
            Awaits::First | Awaits::Handshake | Awaits::Head | Awaits::Body => ASKED,
            Awaits::Nothing => 0,
        };
        let progressed = self.0 & progress != 0;
        self.remember(awaits) && !progressed
    }

    /// Whether it is what was awaited before.
    fn remember(&mut self, awaits: Awaits) -> bool {
        let same = self.awaited() == awaits;
        let before = if self.0 & FRESH != 0 { FRESH_BEFORE } else { 0 };
        self.0 = (self.0 & KNOWN) | (awaits as u8) << STATE_SHIFT | before;
        same
    }

    /// At the last look.
    fn awaited(self) -> Awaits {
        STATES[usize::from((self.0 & !FRESH_BEFORE) >> STATE_SHIFT) % STATES.len()]
    }
}

/// Goes round the connections of a thread.
#[derive(Debug)]
pub(crate) struct Sweep {
    limits_ms: [u32; 6],
    /// In which all are looked at once.
    period_ms: u32,
    /// Our own clock. It wraps after 49 days, which no deadline lasts.
    clock_ms: u32,
    read_at: Option<Instant>,
    /// Where we are in this round, and when it began.
    cursor: usize,
    began_ms: u32,
}

impl Sweep {
    pub(crate) fn new(deadlines: Deadlines) -> Self {
        let shortest = deadlines.0.into_iter().min().unwrap_or(NEVER);
        let period_ms = (shortest / LOOKS).clamp(1, PERIOD_MS_MAX);
        Self { limits_ms: deadlines.0, period_ms, clock_ms: 0, read_at: None, cursor: 0, began_ms: 0 }
    }

    /// How long a thread may sleep at most.
    pub(crate) fn longest_wait(&self) -> Duration {
        Duration::from_millis(self.period_ms.into())
    }

    /// What a connection that comes now has as the beginning of its wait.
    pub(crate) fn now_ms(&self) -> u32 {
        self.clock_ms
    }

    /// The time is `now`.
    pub(crate) fn advance(&mut self, now: Instant) {
        let read_at = *self.read_at.get_or_insert(now);
        let ms = now.since(read_at) / NS_PER_MS;
        self.clock_ms = self.clock_ms.wrapping_add(ms.min(STEP_MS_MAX) as u32);
        self.read_at = Some(read_at.after(ms * NS_PER_MS));
    }

    /// Which of so many slots are to be looked at now.
    pub(crate) fn slots(&mut self, slots: usize) -> Range<usize> {
        let period_ms = if slots <= FEW { self.period_ms.min(PERIOD_MS_OF_FEW) } else { self.period_ms };
        let passed = self.clock_ms.wrapping_sub(self.began_ms).min(period_ms);
        let until = (slots as u64 * u64::from(passed) / u64::from(period_ms)) as usize;
        let range = self.cursor.min(until)..until;
        self.cursor = until;
        if passed == period_ms {
            (self.cursor, self.began_ms) = (0, self.clock_ms);
        }
        range
    }

    /// A look at a connection, which has been awaiting something since `since_ms`: why it is to be closed, if it is.
    pub(crate) fn look(&self, awaits: Awaits, signs: &mut Signs, since_ms: &mut u32) -> Option<Cause> {
        if !signs.stands_still(awaits) {
            *since_ms = self.clock_ms;
            return None;
        }
        let waited_ms = self.clock_ms.wrapping_sub(*since_ms);
        (waited_ms >= *self.limits_ms.get(awaits as usize)?).then_some(CAUSES[awaits as usize])
    }

    /// How much a connection is due to make room while others cannot come in; None: it is not. It is no look.
    pub(crate) fn due_to_go(&self, awaits: Awaits, signs: Signs, since_ms: u32) -> Option<u64> {
        if signs.awaited() != awaits || signs.0 & (SENT | ASKED) != 0 {
            return None;
        }
        let grace_ms = match (signs.0 & (FRESH | FRESH_BEFORE) != 0, awaits) {
            (false, _) => *GRACE_MS.get(awaits as usize)?,
            (true, Awaits::Head | Awaits::Handshake) => DRIP_GRACE_MS,
            (true, _) => return None,
        };
        let waited_ms = self.clock_ms.wrapping_sub(since_ms);
        (waited_ms >= grace_ms).then(|| u64::from(waited_ms) * 1000 / u64::from(grace_ms))
    }
}

/// Of those that are due to make room, the few that are so most.
pub(crate) fn most_due<N: Copy + Ord>(mut due: Vec<(u64, N)>) -> Vec<N> {
    due.sort_unstable_by(|a, b| b.cmp(a));
    due.truncate(MAKE_ROOM);
    due.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One connection, and a sweep that looks at it every 100 ms of its time.
    struct Trial {
        sweep: Sweep,
        signs: Signs,
        since: u32,
        now: Instant,
    }

    impl Trial {
        fn new(deadlines: &str) -> Self {
            let mut sweep = Sweep::new(Deadlines::parse(deadlines).unwrap());
            let now = Instant(5);
            sweep.advance(now);
            Self { since: sweep.now_ms(), sweep, signs: Signs::new(false), now }
        }

        fn pass(&mut self, ms: u64) {
            self.now = self.now.after(ms * NS_PER_MS);
            self.sweep.advance(self.now);
        }

        /// Looks until it is closed, at most `ms`: when, and why. `stir` is done before each look.
        fn until_closed(&mut self, awaits: Awaits, ms: u64, stir: impl Fn(&mut Signs)) -> Option<(u64, Cause)> {
            (1..=ms / 100).find_map(|step| {
                self.pass(100);
                stir(&mut self.signs);
                let cause = self.sweep.look(awaits, &mut self.signs, &mut self.since)?;
                Some((step * 100, cause))
            })
        }
    }

    #[test]
    fn each_state_has_its_deadline_and_its_cause() {
        let text = "first=1s,handshake=2s,head=3s,body=4s,unread=5s,idle=6s";
        let late = |awaits| Trial::new(text).until_closed(awaits, 60_000, |_| {});
        // From the first look that sees a state, which the state of a new connection needs not.
        assert_eq!(late(Awaits::First), Some((1000, Cause::LateFirst)));
        assert_eq!(late(Awaits::Handshake), Some((2100, Cause::LateHandshake)));
        assert_eq!(late(Awaits::Head), Some((3100, Cause::LateHead)));
        assert_eq!(late(Awaits::Body), Some((4100, Cause::LateBody)));
        assert_eq!(late(Awaits::Unread), Some((5100, Cause::LateReader)));
        assert_eq!(late(Awaits::Next), Some((6100, Cause::LateNext)));
        assert_eq!(late(Awaits::Nothing), None, "a reply that we hold is not the peer's doing");
        let off = |awaits| Trial::new("off").until_closed(awaits, 100_000_000, |_| {});
        assert!(STATES.into_iter().all(|awaits| off(awaits).is_none()));
    }

    #[test]
    fn bytes_that_drip_in_extend_neither_head_nor_body_but_requests_and_reading_do() {
        let text = "head=1s,body=1s,unread=1s,idle=1s";
        let late = |awaits, stir: fn(&mut Signs)| Trial::new(text).until_closed(awaits, 60_000, stir).is_some();
        for awaits in [Awaits::Head, Awaits::Body] {
            assert!(late(awaits, |signs| signs.heard(0)), "{awaits:?}");
            assert!(late(awaits, Signs::sent), "{awaits:?}");
            assert!(!late(awaits, |signs| signs.heard(1)), "{awaits:?}");
        }
        assert!(late(Awaits::Unread, |signs| signs.heard(1)), "asking more is not reading");
        assert!(!late(Awaits::Unread, Signs::sent));
        assert!(!late(Awaits::Next, |signs| signs.heard(0)));
    }

    #[test]
    fn a_server_that_was_stopped_does_not_hold_it_against_its_peers() {
        let mut trial = Trial::new("first=10s");
        trial.pass(3_600_000);
        assert_eq!(trial.sweep.look(Awaits::First, &mut trial.signs, &mut trial.since), None);
        assert_eq!(trial.until_closed(Awaits::First, 60_000, |_| {}), Some((9000, Cause::LateFirst)));
    }

    #[test]
    fn a_round_looks_at_everybody_once() {
        let mut sweep = Sweep::new(Deadlines::parse("head=800ms").unwrap());
        let mut now = Instant(0);
        sweep.advance(now);
        let mut seen = vec![0; 1000];
        for _ in 0..20 {
            // 7 ms do not divide the period of 100 ms.
            now = now.after(7 * NS_PER_MS);
            sweep.advance(now);
            sweep.slots(1000).for_each(|slot| seen[slot] += 1);
            if sweep.cursor == 0 {
                break;
            }
        }
        assert!(seen.iter().all(|count| *count == 1), "{seen:?}");
        assert_eq!(sweep.slots(0), 0..0);
    }

    #[test]
    fn who_makes_room_has_been_silent_for_longest() {
        let mut trial = Trial::new("");
        let due = |trial: &Trial, awaits| trial.sweep.due_to_go(awaits, trial.signs, trial.since);
        trial.pass(499);
        assert_eq!(due(&trial, Awaits::First), None);
        trial.pass(501);
        assert_eq!(due(&trial, Awaits::First), Some(2000));
        assert_eq!(due(&trial, Awaits::Head), None, "it has just begun to speak");
        // Half a body that still comes in stays; one that has stopped goes.
        for _ in 0..5 {
            trial.signs.heard(0);
            assert_eq!(trial.sweep.look(Awaits::Body, &mut trial.signs, &mut trial.since), None);
            trial.pass(900);
            assert_eq!(due(&trial, Awaits::Body), None);
        }
        assert_eq!(trial.sweep.look(Awaits::Body, &mut trial.signs, &mut trial.since), None);
        assert!(due(&trial, Awaits::Body).is_some());
        assert_eq!(due(&trial, Awaits::Nothing), None);
        let due = (0..100).map(|n| (n, n)).collect();
        assert_eq!(most_due(due), [99, 98, 97, 96, 95, 94, 93, 92]);
    }

    #[test]
    fn who_drips_a_head_makes_room_too() {
        for awaits in [Awaits::Head, Awaits::Handshake] {
            let mut trial = Trial::new("");
            let mut due = Vec::new();
            for _ in 0..8 {
                trial.signs.heard(0);
                assert_eq!(trial.sweep.look(awaits, &mut trial.signs, &mut trial.since), None);
                trial.pass(400);
                due.push(trial.sweep.due_to_go(awaits, trial.signs, trial.since).is_some());
            }
            assert!(due[..3] == [false; 3] && due[4..] == [true; 4], "{awaits:?}: {due:?}");
            trial.signs.heard(1);
            assert_eq!(trial.sweep.due_to_go(awaits, trial.signs, trial.since), None, "it has got there");
        }
    }

    #[test]
    fn what_is_typed() {
        let parsed = Deadlines::parse("head=10s,idle=off,body=0").unwrap();
        assert_eq!((parsed.0[2], parsed.0[5], parsed.0[3]), (10_000, NEVER, NEVER));
        assert_eq!(parsed.0[0], Deadlines::default().0[0]);
        for (text, why) in [
            ("heads=1s", "there are first, handshake, head, body, unread, idle"),
            ("head", "give NAME=TIME"),
            ("head=1", "head: "),
            ("head=1ms", "give 10ms to 720h"),
            ("idle=800h", "give 10ms to 720h"),
        ] {
            let error = Deadlines::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
