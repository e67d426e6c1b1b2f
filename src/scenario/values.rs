//! What fills the gaps of templates: one worker's counters, randomness and places in files.

use super::template::{Names, Part, Template};
use crate::protocol::keyspace::{Keys, Keyspace};
use crate::rng::Rng;

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Sets these draws apart from others of the same request.
const SALT: u64 = 0x7363_656e_6172_696f;

/// Draws values. The same draws give the same ones; nothing is allocated after it was made.
///
/// Within one request, a counter has one value, and a file one next line and one random line, however often they are
/// named. All else is drawn for each gap.
#[derive(Clone, Debug)]
pub struct Values {
    rng: Rng,
    keys: Keys,
    /// Which request this is, of ours.
    request: u64,
    step: u64,
    counters: Vec<Count>,
    /// Of each file: its next line, and its random one.
    lines: Vec<(Count, Count)>,
}

/// Something that is counted up at most once a request.
#[derive(Clone, Copy, Debug)]
struct Count {
    value: u64,
    next: u64,
    request: u64,
}

impl Values {
    /// `worker`: which one of how many. Counters begin with the first number, and go up by the second, so that each
    /// number is counted once by all workers together.
    pub fn new(names: &Names, keyspace: &Keyspace, seed: u64, worker: (u64, u64)) -> Self {
        let count = Count { value: 0, next: worker.0, request: 0 };
        let rng = Rng::new(seed ^ SALT);
        let keys = Keys::new(keyspace, seed ^ SALT, worker);
        Self {
            rng,
            keys,
            request: 0,
            step: worker.1.max(1),
            counters: vec![count; names.counters.len()],
            lines: vec![(count, count); names.files.len()],
        }
    }

    /// A request begins, and with it its draws.
    pub fn begin(&mut self, draws: u64) {
        self.request += 1;
        self.rng = Rng::new(draws ^ SALT);
        self.keys.begin(draws);
    }

    /// Appends `template` to `out`, filled in.
    pub fn render(&mut self, template: &Template, names: &Names, out: &mut Vec<u8>) {
        for part in &template.parts {
            match part {
                Part::Literal(bytes) => out.extend_from_slice(bytes),
                Part::Counter(index) => decimal(out, self.counters[*index].count(self.request, self.step)),
                Part::Random(least, most) => {
                    let drawn = match (most - least).checked_add(1) {
                        Some(span) => least + self.rng.below(span),
                        None => self.rng.next_u64(),
                    };
                    decimal(out, drawn);
                }
                Part::Key => self.keys.key(out),
                Part::Value => out.extend_from_slice(self.keys.value()),
                Part::Hex(digits) => self.hex(*digits, out),
                Part::Uuid => self.uuid(out),
                Part::Pick(words) => out.extend_from_slice(&words[self.rng.below(words.len() as u64) as usize]),
                Part::Line { file, any } => {
                    let lines = &names.files[*file];
                    let index = self.line(*file, lines.len() as u64, *any);
                    out.extend_from_slice(lines.get(index));
                }
            }
        }
    }

    fn line(&mut self, file: usize, lines: u64, any: bool) -> usize {
        let (next, random) = &mut self.lines[file];
        if !any {
            return (next.count(self.request, self.step) % lines) as usize;
        }
        if random.request != self.request {
            *random = Count { value: self.rng.below(lines), next: 0, request: self.request };
        }
        random.value as usize
    }

    fn hex(&mut self, digits: usize, out: &mut Vec<u8>) {
        let mut left = digits;
        while left > 0 {
            let mut bits = self.rng.next_u64();
            for _ in 0..left.min(16) {
                out.push(HEX[(bits & 15) as usize]);
                bits >>= 4;
            }
            left = left.saturating_sub(16);
        }
    }

    fn uuid(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        for digits in [8, 4, 4, 4, 12] {
            if out.len() > start {
                out.push(b'-');
            }
            self.hex(digits, out);
        }
        // RFC 9562, 5.4: version 4; variant 10 in the two highest bits.
        out[start + 14] = b'4';
        out[start + 19] = HEX[8 + self.rng.below(4) as usize];
    }
}

impl Count {
    fn count(&mut self, request: u64, step: u64) -> u64 {
        if self.request != request {
            *self = Self { value: self.next, next: self.next.wrapping_add(step), request };
        }
        self.value
    }
}

/// Appends `number` as text.
pub fn decimal(out: &mut Vec<u8>, number: u64) {
    crate::protocol::keyspace::put_number(out, number, 1);
}
