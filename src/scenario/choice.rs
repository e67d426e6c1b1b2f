//! Which request is next: drawn from a mix, the next step of a script, or the next of a list.

use crate::protocol::ask::Ask;
use crate::rng::Rng;

/// Sets these draws apart from those by which templates are filled in.
const SALT: u64 = 0x6d69_7800_6d69_7800;

/// Draws requests. How far a user is, is in its `cursor`.
///
/// A cursor is one word. 0: between two sessions, and the next one is drawn. Else the script (from 1 on) in the upper
/// half, and in the lower half the step that comes next.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Sums of the weights up to and including each script.
    sums: Vec<u64>,
    scripts: Vec<Vec<u16>>,
}

/// Steps of a script, and scripts, at most.
pub(super) const STEPS_MAX: usize = 0xffff;

impl Choice {
    /// `scripts`: requests in order, and a weight; none is empty, and one weight at least is not 0. A request that is
    /// drawn by itself is a script of one step.
    pub fn new(scripts: impl IntoIterator<Item = (Vec<u16>, u32)>) -> Self {
        let (mut sums, mut steps, mut sum) = (Vec::new(), Vec::new(), 0);
        for (script, weight) in scripts {
            sum += u64::from(weight);
            sums.push(sum);
            steps.push(script);
        }
        Self { sums, scripts: steps }
    }

    /// The request that is asked for; the cursor moves on.
    pub fn next(&self, ask: &mut Ask) -> u16 {
        let (script, step) = match taken_apart(ask.cursor) {
            Some((script, step)) if script < self.scripts.len() && step < self.scripts[script].len() => (script, step),
            _ => (self.draw(ask.draws), 0),
        };
        let steps = &self.scripts[script];
        ask.cursor = if step + 1 < steps.len() { put_together(script, step + 1) } else { 0 };
        steps[step]
    }

    fn draw(&self, draws: u64) -> usize {
        match self.sums[..] {
            [_] => 0,
            [.., total] => {
                let at = Rng::new(draws ^ SALT).below(total);
                self.sums.partition_point(|sum| *sum <= at)
            }
            [] => 0,
        }
    }
}

/// Script and step of a cursor; `None`: between two sessions.
pub fn taken_apart(cursor: u32) -> Option<(usize, usize)> {
    let script = (cursor >> 16) as usize;
    Some((script.checked_sub(1)?, (cursor & 0xffff) as usize))
}

fn put_together(script: usize, step: usize) -> u32 {
    ((script as u32 + 1) << 16) | step as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ask::Asker;

    #[test]
    fn scripts_are_kept_apart_by_place() {
        let choice = Choice::new([(vec![0, 1, 2], 1), (vec![7], 1)]);
        let mut cursors = [0_u32; 50];
        let mut said = vec![Vec::new(); 50];
        let mut rng = Rng::new(9);
        for _ in 0..5_000 {
            let connection = rng.below(50) as usize;
            let mut ask = Ask { draws: rng.next_u64(), cursor: cursors[connection] };
            said[connection].push(choice.next(&mut ask));
            cursors[connection] = ask.cursor;
        }
        let mut scripts = 0;
        for (said, cursor) in said.iter().zip(cursors) {
            let mut rest = &said[..];
            while !rest.is_empty() {
                let length = if rest[0] == 7 { 1 } else { 3.min(rest.len()) };
                assert!(rest[0] == 7 || rest[..length] == [0, 1, 2][..length], "{said:?}");
                assert!(length == 3 || rest[0] == 7 || cursor != 0);
                rest = &rest[length..];
                scripts += 1;
            }
        }
        assert!(scripts > 2_000);
    }

    #[test]
    fn weights_are_kept() {
        let weights = [8_u32, 0, 1, 3];
        let choice = Choice::new(weights.iter().zip(0..).map(|(w, n)| (vec![n], *w)));
        let mut seen = [0_u32; 4];
        let count = 120_000;
        let mut asker = Asker::new(1, 0);
        (0..count).for_each(|_| seen[usize::from(asker.ask(|ask| choice.next(ask)))] += 1);
        for (weight, seen) in weights.into_iter().zip(seen) {
            let p = f64::from(weight) / 12.0;
            let sigma = (f64::from(count) * p * (1.0 - p)).sqrt();
            assert!((f64::from(seen) - f64::from(count) * p).abs() <= 5.0 * sigma, "{weight}: {seen}");
        }
    }
}
