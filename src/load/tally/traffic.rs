//! What was counted of sessions that arrive by a schedule, and of the streams of several targets.

use crate::histogram::Recorder;

/// Lengths are 32-bit numbers; the last place has all of 2^30 and more.
const LENGTHS: usize = u32::BITS as usize;

/// Sessions, since the load began.
#[derive(Debug, Default)]
pub struct SessionTally {
    pub started: u64,
    pub broken: u64,
    pub in_progress: u64,
    /// They arrived, and every connection was busy until the end.
    pub unstarted: u64,
    /// Completed ones by their number of requests: those with up to 1, 2, 4, 8, ...
    pub lengths: [u64; LENGTHS],
    /// From its arrival to its last reply, of those that arrived within the window.
    pub duration: Recorder,
    /// How many of these were still there at the end.
    pub censored: u64,
}

impl SessionTally {
    pub fn completed(&mut self, length: u32) {
        // The least e with 2^e >= length.
        let exponent = u32::BITS - (length.max(1) - 1).leading_zeros();
        self.lengths[(exponent as usize).min(LENGTHS - 1)] += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.started += other.started;
        self.broken += other.broken;
        self.in_progress += other.in_progress;
        self.unstarted += other.unstarted;
        self.censored += other.censored;
        self.duration.merge(&other.duration);
        self.lengths.iter_mut().zip(&other.lengths).for_each(|(sum, count)| *sum += count);
    }
}

/// What was due for one target.
#[derive(Debug, Default)]
pub struct StreamTally {
    /// Within the window, and in all.
    pub scheduled: [u64; 2],
    pub unsent: [u64; 2],
    /// Of requests of the window.
    pub backlog_wait: Recorder,
    pub generator_lag: Recorder,
}

impl StreamTally {
    /// `covered`: it is of the window.
    pub fn scheduled(&mut self, covered: bool) {
        self.scheduled[0] += u64::from(covered);
        self.scheduled[1] += 1;
    }

    pub fn unsent(&mut self, covered: bool, waited_ns: u64) {
        self.unsent[0] += u64::from(covered);
        self.unsent[1] += 1;
        if covered {
            self.backlog_wait.record(waited_ns);
        }
    }
}

pub(super) fn merge_streams(sum: &mut Vec<StreamTally>, other: &[StreamTally]) {
    if sum.len() < other.len() {
        sum.resize_with(other.len(), StreamTally::default);
    }
    for (sum, other) in sum.iter_mut().zip(other) {
        for at in 0..2 {
            sum.scheduled[at] += other.scheduled[at];
            sum.unsent[at] += other.unsent[at];
        }
        sum.backlog_wait.merge(&other.backlog_wait);
        sum.generator_lag.merge(&other.generator_lag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_by_powers_of_two() {
        let mut sessions = SessionTally::default();
        [1, 2, 3, 4, 5, 8, 9, u32::MAX].into_iter().for_each(|length| sessions.completed(length));
        assert_eq!((&sessions.lengths[..5], sessions.lengths[31]), (&[1, 1, 2, 2, 1][..], 1));
    }
}
