//! Which keys are asked for, and how large values are.

use crate::rng::Rng;
use crate::units::parse_decimal;

/// The keys of a load.
#[derive(Clone, Debug, PartialEq)]
pub struct Keyspace {
    /// Keys are `<prefix><number>`, the number in 0..keys with leading zeros, so that all are of one length.
    pub prefix: String,
    pub keys: u64,
    pub spread: Spread,
    /// Bytes of a value, both ends included.
    pub value_size: (usize, usize),
}

impl Default for Keyspace {
    fn default() -> Self {
        Self { prefix: "key:".into(), keys: 10_000, spread: Spread::Uniform, value_size: (64, 64) }
    }
}

/// How often which key is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    Uniform,
    /// One after the other, again and again; several workers share them out.
    Sequential,
    /// Key `k` with a probability in proportion to 1 / (k + 1)^exponent.
    Zipf(f64),
}

impl Spread {
    /// Reads `uniform`, `sequential`, `zipf` (0.99, as YCSB has it) or `zipf:EXPONENT`.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("uniform", "") => Ok(Self::Uniform),
            ("sequential", "") => Ok(Self::Sequential),
            ("zipf", "") if !text.ends_with(':') => Ok(Self::Zipf(0.99)),
            ("zipf", exponent) => match parse_decimal(exponent) {
                Some(exponent) if (0.01..=10.0).contains(&exponent) => Ok(Self::Zipf(exponent)),
                _ => Err(format!("'{exponent}' is no exponent of a Zipf distribution (0.01 to 10)")),
            },
            _ => {
                Err(format!("'{text}' is no distribution of keys; there are uniform, sequential, zipf, zipf:EXPONENT"))
            }
        }
    }

    /// As [`Spread::parse`] reads it.
    pub fn describe(&self) -> String {
        match self {
            Self::Uniform => "uniform".into(),
            Self::Sequential => "sequential".into(),
            Self::Zipf(exponent) => format!("zipf:{exponent}"),
        }
    }
}

/// Draws keys and values. Nothing is allocated after it was made.
#[derive(Clone, Debug)]
pub struct Keys {
    keyspace: Keyspace,
    digits: usize,
    rng: Rng,
    next: u64,
    step: u64,
    zipf: Option<Zipf>,
    /// Printable bytes, from which values are cut.
    filler: Vec<u8>,
}

impl Keys {
    /// `worker`: which one of how many, for keys that are shared out.
    pub fn new(keyspace: &Keyspace, seed: u64, worker: (u64, u64)) -> Self {
        let mut rng = Rng::new(seed);
        let filler = std::iter::repeat_with(|| b'a' + rng.below(26) as u8).take(keyspace.value_size.1).collect();
        let zipf = match keyspace.spread {
            Spread::Zipf(exponent) => Some(Zipf::new(keyspace.keys.max(1), exponent)),
            _ => None,
        };
        Self {
            digits: keyspace.keys.saturating_sub(1).max(1).ilog10() as usize + 1,
            keyspace: keyspace.clone(),
            rng,
            next: worker.0,
            step: worker.1.max(1),
            zipf,
            filler,
        }
    }

    /// A request begins, and with it its draws.
    #[inline]
    pub fn begin(&mut self, draws: u64) {
        self.rng = Rng::new(draws);
    }

    /// Bytes of every key.
    pub fn key_len(&self) -> usize {
        self.keyspace.prefix.len() + self.digits
    }

    /// Appends a key that was drawn.
    pub fn key(&mut self, out: &mut Vec<u8>) {
        let keys = self.keyspace.keys.max(1);
        let number = match (self.keyspace.spread, &self.zipf) {
            (Spread::Sequential, _) => {
                let number = self.next % keys;
                self.next += self.step;
                number
            }
            (_, Some(zipf)) => zipf.draw(&mut self.rng),
            _ => self.rng.below(keys),
        };
        out.extend_from_slice(self.keyspace.prefix.as_bytes());
        put_number(out, number, self.digits);
    }

    /// A value of a size that was drawn.
    pub fn value(&mut self) -> &[u8] {
        let (least, most) = self.keyspace.value_size;
        let size = least + self.rng.below((most - least) as u64 + 1) as usize;
        &self.filler[..size]
    }

    /// Draws one of several by their weights, whose sum is `total` (> 0).
    pub fn pick(&mut self, weights: &[u32], total: u64) -> usize {
        let mut at = self.rng.below(total);
        for (index, weight) in weights.iter().enumerate() {
            match at.checked_sub(u64::from(*weight)) {
                None => return index,
                Some(rest) => at = rest,
            }
        }
        weights.len() - 1
    }
}

/// Appends `number` with leading zeros.
pub fn put_number(out: &mut Vec<u8>, mut number: u64, digits: usize) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    while number > 0 || at > text.len() - digits.min(text.len()) {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&text[at..]);
}

/// Zipf-distributed numbers in constant time and memory, by rejection-inversion (Hörmann and Derflinger,
/// "Rejection-inversion to generate variates from monotone discrete distributions", 1996).
#[derive(Clone, Debug)]
struct Zipf {
    keys: f64,
    exponent: f64,
    at_first: f64,
    at_last: f64,
    accept: f64,
}

impl Zipf {
    fn new(keys: u64, exponent: f64) -> Self {
        let mut zipf = Self { keys: keys as f64, exponent, at_first: 0.0, at_last: 0.0, accept: 0.0 };
        zipf.at_first = zipf.integral(1.5) - 1.0;
        zipf.at_last = zipf.integral(zipf.keys + 0.5);
        zipf.accept = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    fn draw(&self, rng: &mut Rng) -> u64 {
        loop {
            let u = self.at_last + (1.0 - rng.unit()) * (self.at_first - self.at_last);
            let x = self.inverse(u);
            let k = x.round().clamp(1.0, self.keys);
            if k - x <= self.accept || u >= self.integral(k + 0.5) - self.density(k) {
                return k as u64 - 1;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        x.powf(-self.exponent)
    }

    /// Of the density, from 1 to x.
    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { x.ln() } else { (x.powf(power) - 1.0) / power }
    }

    fn inverse(&self, y: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { y.exp() } else { (1.0 + y * power).max(0.0).powf(1.0 / power) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(spread: Spread, keys: u64, count: usize, worker: (u64, u64)) -> Vec<u64> {
        let mut source = Keys::new(&Keyspace { keys, spread, ..Keyspace::default() }, 1, worker);
        let mut number = || {
            let mut key = Vec::new();
            source.key(&mut key);
            assert_eq!(key.len(), source.key_len());
            std::str::from_utf8(&key).unwrap().strip_prefix("key:").unwrap().parse().unwrap()
        };
        (0..count).map(|_| number()).collect()
    }

    #[test]
    fn zipf_has_its_probabilities() {
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let count = 200_000;
            let drawn = drawn(Spread::Zipf(exponent), 100, count, (0, 1));
            let total: f64 = (1..=100).map(|k| f64::from(k).powf(-exponent)).sum();
            for key in [0_u64, 1, 4, 99] {
                let expected = ((key + 1) as f64).powf(-exponent) / total;
                let seen = drawn.iter().filter(|k| **k == key).count() as f64 / count as f64;
                let error = (expected * (1.0 - expected) / count as f64).sqrt();
                assert!((seen - expected).abs() < 5.0 * error, "{exponent} {key}: {seen} for {expected}");
            }
        }
    }

    #[test]
    fn sequential_keys_are_shared_out() {
        assert_eq!(drawn(Spread::Sequential, 5, 6, (0, 1)), [0, 1, 2, 3, 4, 0]);
        assert_eq!(drawn(Spread::Sequential, 10, 3, (1, 2)), [1, 3, 5]);
    }

    #[test]
    fn uniform_keys_reach_all() {
        let mut drawn = drawn(Spread::Uniform, 10, 1000, (0, 1));
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 10);
    }

    #[test]
    fn spreads_are_read_back() {
        for text in ["uniform", "sequential", "zipf:0.99", "zipf:1.2"] {
            assert_eq!(Spread::parse(text).unwrap().describe(), text);
        }
        for text in ["", "zipf:", "zipf:x", "zipf:-1", "normal", "uniform:1"] {
            assert!(Spread::parse(text).is_err(), "{text}");
        }
    }
}
