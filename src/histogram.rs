//! Durations in nanoseconds: recorded in constant memory, merged exactly, asked for quantiles.
//!
//! Buckets are those of HdrHistogram (3 significant digits, 1 ns to 1 h); what buckets blur and reports must not is
//! kept beside them: count, minimum, maximum and sum are exact.

use crate::result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use std::fmt;
use std::io::Read as _;

/// Values above this share the last bucket; the exact maximum and sum still tell.
pub const HIGHEST_NS: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// The quantiles that a report names, as it names them.
pub const QUANTILES: &[(&str, f64)] =
    &[("0.5", 0.5), ("0.9", 0.9), ("0.95", 0.95), ("0.99", 0.99), ("0.999", 0.999), ("0.9999", 0.9999)];

/// A histogram of durations.
#[derive(Clone)]
pub struct Recorder {
    buckets: Histogram<u64>,
    count: u64,
    min_ns: u64,
    max_ns: u64,
    sum_ns: u64,
}

// By hand: nobody wants to read 33,000 buckets.
impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({} values, {:?} to {:?} ns)", self.count, self.min_ns(), self.max_ns())
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty histogram. All memory (about 270 KiB) is taken now, none later.
    ///
    /// # Panics
    /// Never: the bounds are constants that hdrhistogram accepts.
    pub fn new() -> Self {
        let buckets = Histogram::new_with_bounds(1, HIGHEST_NS, SIGNIFICANT_DIGITS).expect("valid constant bounds");
        Self { buckets, count: 0, min_ns: u64::MAX, max_ns: 0, sum_ns: 0 }
    }

    /// Counts one duration. Never fails and never allocates: what is longer than an hour counts as an hour in the
    /// quantiles, and in full in `max` and `sum`.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        // Clamped here, too: the last power of two reaches beyond the highest value, and what hdrhistogram itself
        // clamps would then rank below it.
        self.buckets.saturating_record(ns.min(HIGHEST_NS));
        self.count += 1;
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The exact shortest duration; None if there is none.
    pub fn min_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min_ns)
    }

    /// The exact longest duration; None if there is none.
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_ns)
    }

    /// The exact mean, rounded down; None if nothing was recorded.
    pub fn mean_ns(&self) -> Option<u64> {
        self.sum_ns.checked_div(self.count)
    }

    /// The buckets alone, for formats that are HdrHistogram's own. What is beside them is exact, they are not.
    pub fn buckets(&self) -> &Histogram<u64> {
        &self.buckets
    }

    /// Adds everything that `other` recorded, as if it had been recorded here.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same constant bounds, the only thing that `add` can object to.
        self.buckets.add(&other.buckets).expect("equal bounds");
        // The counts may come from damaged files.
        self.count = self.count.saturating_add(other.count);
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.buckets.reset();
        (self.count, self.min_ns, self.max_ns, self.sum_ns) = (0, u64::MAX, 0, 0);
    }

    /// The smallest duration that at least `q` (0 to 1) of all durations do not exceed, in nanoseconds, within 0.1 %
    /// and within the exact minimum and maximum. 0 if nothing was recorded.
    pub fn quantile(&self, q: f64) -> u64 {
        if self.count == 0 {
            return 0;
        }
        self.buckets.value_at_quantile(q).clamp(self.min_ns, self.max_ns)
    }

    /// How many durations are longer than the one at quantile `q`: what a percentile rests on.
    pub fn count_beyond(&self, q: f64) -> u64 {
        count_beyond(self.count, q)
    }

    /// As a report stores it; None if nothing was recorded.
    pub fn report(&self) -> Option<result::Histogram> {
        let mean_ns = self.mean_ns()?;
        let quantiles_ns = QUANTILES.iter().map(|(name, q)| ((*name).to_owned(), self.quantile(*q))).collect();
        Some(result::Histogram {
            count: self.count,
            min_ns: self.min_ns,
            mean_ns,
            max_ns: self.max_ns,
            sum_ns: self.sum_ns,
            quantiles_ns,
            hdr: encode(&self.buckets),
        })
    }

    /// Whether a report's histogram has these very buckets, so that nothing moves when it is merged.
    ///
    /// # Errors
    /// One line, if it is damaged or has other bounds.
    pub fn check_buckets(report: &result::Histogram) -> Result<(), String> {
        let stored = decode(&report.hdr)?;
        let (low, high, digits) = (stored.low(), stored.high(), stored.sigfig());
        if (low, high, digits) == (1, HIGHEST_NS, SIGNIFICANT_DIGITS) {
            return Ok(());
        }
        Err(format!(
            "histogram goes from {low} to {high} ns in {digits} digits, and not from 1 to {HIGHEST_NS} in \
             {SIGNIFICANT_DIGITS}: its buckets are others"
        ))
    }

    /// The histogram of a report, ready to be merged with others.
    ///
    /// # Errors
    /// One line, if the encoded buckets are damaged or do not agree with the figures beside them.
    pub fn from_report(report: &result::Histogram) -> Result<Self, String> {
        let mut recorder = Self::new();
        let stored = decode(&report.hdr)?;
        if stored.len() != report.count {
            return Err(format!("histogram holds {} values, but its count says {}", stored.len(), report.count));
        }
        for step in stored.iter_recorded() {
            // Re-recorded, not adopted: whoever wrote it may have chosen other bounds.
            let value = step.value_iterated_to().min(HIGHEST_NS);
            recorder.buckets.saturating_record_n(value, step.count_since_last_iteration());
        }
        if report.count == 0 {
            return Ok(recorder);
        }
        let same = |a: u64, b: u64| recorder.buckets.equivalent(a.min(HIGHEST_NS), b.min(HIGHEST_NS));
        if report.min_ns > report.max_ns || !same(report.min_ns, stored.min()) || !same(report.max_ns, stored.max()) {
            return Err(format!(
                "histogram spans {} to {} ns, but min_ns and max_ns say {} to {}",
                stored.min(),
                stored.max(),
                report.min_ns,
                report.max_ns
            ));
        }
        (recorder.count, recorder.min_ns, recorder.max_ns, recorder.sum_ns) =
            (report.count, report.min_ns, report.max_ns, report.sum_ns);
        recorder.agrees(report, &stored)?;
        Ok(recorder)
    }

    /// Whether sum, mean and quantiles can be those of the buckets.
    fn agrees(&self, report: &result::Histogram, stored: &Histogram<u64>) -> Result<(), String> {
        let (mut least, mut most) = (0, 0);
        for step in stored.iter_recorded() {
            let (highest, count) = (step.value_iterated_to(), u128::from(step.count_since_last_iteration()));
            least += u128::from(stored.lowest_equivalent(highest)) * count;
            most += u128::from(highest) * count;
        }
        // What is too long for the buckets, or for the sum, has no upper bound.
        let open = report.max_ns > HIGHEST_NS || report.sum_ns == u64::MAX;
        let sum = u128::from(report.sum_ns);
        if sum < least.min(u128::from(u64::MAX)) || sum > most && !open {
            return Err(format!("histogram adds up to {least} to {most} ns, but sum_ns says {sum}"));
        }
        if self.mean_ns() != Some(report.mean_ns) {
            let mean = report.sum_ns / report.count;
            return Err(format!("sum_ns / count is {mean} ns, but mean_ns says {}", report.mean_ns));
        }
        for (name, q) in QUANTILES {
            let Some(said) = report.quantiles_ns.get(*name) else { continue };
            let found = self.quantile(*q);
            // Twice the width of a bucket: another version of the encoder may choose its other end.
            if found.abs_diff(*said) > found.max(*said) / 500 {
                return Err(format!("histogram has quantile {name} at {found} ns, but quantiles_ns says {said}"));
            }
        }
        Ok(())
    }
}

/// How many of `count` values lie beyond quantile `q`.
pub fn count_beyond(count: u64, q: f64) -> u64 {
    // The small addend mends what `1.0 - 0.9999` loses: of 100,000 values, 10 lie beyond, not 9.
    (count as f64 * (1.0 - q.clamp(0.0, 1.0)) + 1e-6) as u64
}

fn encode(buckets: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(buckets, &mut bytes).expect("writing to memory does not fail");
    BASE64.encode(bytes)
}

/// HdrHistogram V2, compressed.
const COOKIE: [u8; 4] = [0x1c, 0x84, 0x93, 0x14];

fn decode(hdr: &str) -> Result<Histogram<u64>, String> {
    let bytes = BASE64.decode(hdr).map_err(|problem| format!("histogram is not base64: {problem}"))?;
    // The two words in front are a cookie and the length of the rest; hdrhistogram does not miss a lost tail.
    let Some((head, deflated)) = bytes.split_at_checked(8) else { return Err("histogram is cut short".to_owned()) };
    if head[..4] != COOKIE {
        return Err("histogram is damaged: it is not HdrHistogram V2, compressed".to_owned());
    }
    if head[4..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)) != deflated.len() {
        return Err("histogram is cut short".to_owned());
    }
    let plain = inflated(deflated)?;
    let stored: Histogram<u64> = Deserializer::new()
        .deserialize(&mut plain.as_slice())
        .map_err(|problem| format!("histogram is damaged: {problem}"))?;
    // Beyond this, sums no longer fit.
    if stored.len() > i64::MAX as u64 {
        return Err("histogram is damaged: it holds too many values".to_owned());
    }
    Ok(stored)
}

/// The uncompressed encoding, of which hdrhistogram takes lengths and bounds on trust: it would take 4 GiB of memory if
/// told so.
fn inflated(deflated: &[u8]) -> Result<Vec<u8>, String> {
    /// Cookie, length of the counts, offset, digits, lowest and highest value, ratio.
    const HEADER: usize = 4 * 4 + 3 * 8;
    /// More than all buckets take, 9 bytes each.
    const MOST: u64 = 1 << 20;
    let mut plain = Vec::new();
    let unpacked = ZlibDecoder::new(deflated).take(MOST + 1).read_to_end(&mut plain);
    unpacked.map_err(|problem| format!("histogram is damaged: {problem}"))?;
    if plain.len() as u64 > MOST || plain.len() < HEADER {
        return Err("histogram is damaged: its length is impossible".to_owned());
    }
    let word =
        |at: usize, bytes: usize| plain[at..at + bytes].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let (length, digits, highest) = (word(4, 4), word(12, 4), word(24, 8));
    if length != (plain.len() - HEADER) as u64 || digits > 5 || highest > 1 << 60 {
        return Err("histogram is damaged: its header is impossible".to_owned());
    }
    // The one count that hdrhistogram cannot negate.
    if plain[HEADER..].windows(9).any(|bytes| bytes.iter().all(|byte| *byte == 0xff)) {
        return Err("histogram is damaged: a count is impossible".to_owned());
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of its own (SplitMix64), so that a change of `rng` does not move these tests.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Values of every magnitude from 0 to an hour, edges included.
    fn values(n: usize, seed: u64) -> Vec<u64> {
        let mut state = seed;
        let mut values = vec![0, 1, 2, 2_047, 2_048, 2_049, HIGHEST_NS - 1, HIGHEST_NS];
        values.extend((values.len()..n).map(|_| {
            let magnitude = random(&mut state) % 42;
            (random(&mut state) % (1 << magnitude)).min(HIGHEST_NS)
        }));
        values
    }

    fn recorded(values: &[u64]) -> Recorder {
        let mut recorder = Recorder::new();
        values.iter().for_each(|ns| recorder.record(*ns));
        recorder
    }

    #[test]
    fn quantiles_are_within_a_thousandth_of_the_exact_ones() {
        let mut exact = values(1_000_000, 1);
        let recorder = recorded(&exact);
        exact.sort_unstable();
        for q in [0.0, 0.000_001, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999, 1.0] {
            let rank = ((q * exact.len() as f64).ceil() as usize).max(1);
            let (want, got) = (exact[rank - 1], recorder.quantile(q));
            assert!(want.abs_diff(got) as f64 <= want as f64 * 0.001, "q {q}: {got} instead of {want}");
        }
        assert_eq!(recorder.min_ns(), Some(0));
        assert_eq!(recorder.max_ns(), Some(HIGHEST_NS));
        assert_eq!(recorder.mean_ns(), Some(exact.iter().sum::<u64>() / 1_000_000));
    }

    #[test]
    fn a_merge_equals_the_record_of_the_union() {
        let (left, right) = (values(5_000, 2), values(3_000, 3));
        let mut merged = recorded(&left);
        merged.merge(&recorded(&right));
        merged.merge(&Recorder::new());
        assert_eq!(merged.report(), recorded(&[left, right].concat()).report());
    }

    #[test]
    fn quantiles_never_fall_as_q_rises() {
        let recorder = recorded(&values(10_000, 4));
        let quantiles: Vec<u64> = (0..=1000).map(|permille| recorder.quantile(f64::from(permille) / 1000.0)).collect();
        assert!(quantiles.is_sorted());
    }

    #[test]
    fn what_is_too_long_counts_and_ranks_last() {
        let recorder = recorded(&[u64::MAX, HIGHEST_NS + 1, 5, HIGHEST_NS * 6 / 5]);
        assert_eq!((recorder.count(), recorder.max_ns()), (4, Some(u64::MAX)));
        assert!(recorder.quantile(0.75) >= HIGHEST_NS);
        assert_eq!(recorder.quantile(0.25), 5);
        assert!(recorder.report().is_some_and(|report| Recorder::from_report(&report).is_ok()));
    }

    #[test]
    fn quantiles_stay_within_the_exact_bounds() {
        let recorder = recorded(&[1_000_003]);
        assert!(QUANTILES.iter().all(|(_, q)| recorder.quantile(*q) == 1_000_003));
    }

    #[test]
    fn a_report_gives_back_the_recorder() {
        let report = recorded(&values(20_000, 5)).report().unwrap();
        let back = Recorder::from_report(&report).unwrap();
        assert_eq!(back.report().as_ref(), Some(&report));
        assert_eq!(Recorder::new().report(), None);
    }

    #[test]
    fn a_damaged_histogram_is_refused() {
        let good = recorded(&values(100, 6)).report().unwrap();
        let mut damaged = vec![
            result::Histogram { count: good.count + 1, ..good.clone() },
            result::Histogram { max_ns: good.max_ns / 2, ..good.clone() },
            result::Histogram { min_ns: 7, ..good.clone() },
            result::Histogram { mean_ns: good.mean_ns + 1, ..good.clone() },
            result::Histogram { sum_ns: good.sum_ns * 2, mean_ns: good.sum_ns * 2 / good.count, ..good.clone() },
            result::Histogram { quantiles_ns: [("0.5".to_owned(), good.max_ns)].into(), ..good.clone() },
            result::Histogram { hdr: "no base64!".to_owned(), ..good.clone() },
        ];
        damaged.extend(
            (0..good.hdr.len()).map(|end| result::Histogram { hdr: good.hdr[..end].to_owned(), ..good.clone() }),
        );
        for report in damaged {
            let problem = Recorder::from_report(&report).unwrap_err();
            assert!(!problem.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn ten_of_a_hundred_thousand_lie_beyond_the_last_percentile() {
        assert_eq!(count_beyond(100_000, 0.9999), 10);
        assert_eq!(count_beyond(10_000, 0.999), 10);
        assert_eq!(count_beyond(9_999, 0.999), 9);
        assert_eq!(count_beyond(0, 0.5), 0);
    }
}
