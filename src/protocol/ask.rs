//! Which request is asked for: what is drawn by lot for it, and how far its user is in a script.

use crate::rng::Rng;

/// Which request is asked for.
///
/// What a protocol draws for it (which of a mix, which key, which random number) follows from this value alone, so that
/// a request that has to be asked again is the same one. What is counted up (`{counter}`, the next line of a file, keys
/// in sequence) is not drawn: it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Where the draws of this request begin.
    pub draws: u64,
    /// 0 when a user's script is to begin. In between it is the protocol's own: it says how far the user is in its
    /// script. To give a script up, set it to 0.
    pub cursor: u32,
}

/// Somebody who asks one thing after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    draws: u64,
    asked: u32,
    /// As in [`Ask::cursor`], of what comes next.
    pub cursor: u32,
}

impl Asker {
    /// The user with this number, of the run with this seed.
    pub fn new(seed: u64, number: u64) -> Self {
        Self { draws: Rng::new(Rng::new(seed).next_u64() ^ number).next_u64(), asked: 0, cursor: 0 }
    }

    /// What they ask for next. The protocol moves its cursor on, and that is to be kept here.
    #[inline]
    pub fn next_ask(&mut self) -> Ask {
        let draws = Rng::new(self.draws ^ u64::from(self.asked)).next_u64();
        self.asked = self.asked.wrapping_add(1);
        Ask { draws, cursor: self.cursor }
    }

    /// They ask for what comes next: that is said to `ask`, which moves the cursor on.
    pub fn ask<R>(&mut self, ask: impl FnOnce(&mut Ask) -> R) -> R {
        let mut next = self.next_ask();
        let answer = ask(&mut next);
        self.cursor = next.cursor;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_drawn_follows_from_seed_user_and_number() {
        let mut seen = BTreeSet::new();
        for (seed, number) in (0..20).flat_map(|seed| (0..20).map(move |number| (seed, number))) {
            let (mut one, mut other) = (Asker::new(seed, number), Asker::new(seed, number));
            for _ in 0..20 {
                let ask = one.ask(|ask| *ask);
                assert_eq!(ask, other.ask(|ask| *ask));
                assert!(seen.insert(ask.draws), "another request draws the same");
            }
        }
    }
}
