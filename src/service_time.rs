//! Injected service times: how long a server is to pretend that it works. One virtual first-in, first-out resource
//! serves all requests in the order in which they arrive; no CPU is burnt, a reply is merely held back until it is due.
//!
//! Everything random is drawn from a seed in the order of arrivals, so that what a run did can be computed again.

use crate::result::fnv1a_hex;
use crate::rng::Rng;
use crate::time::{Instant, NS_PER_MS, NS_PER_S, NS_PER_US};
use crate::units::{parse_decimal, parse_duration_ns};

/// The longest single duration that can be injected.
const LONGEST_NS: u64 = 3_600 * NS_PER_S;
const KINDS: &str = "give fixed:TIME, exp:MEAN, bimodal:P,TIME,TIME (the second with probability P) or trace:FILE";

/// How durations are distributed.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Always the same, in nanoseconds.
    Fixed(u64),
    /// Exponential, with this mean in nanoseconds.
    Exponential(u64),
    /// `rare_ns` with probability `probability`, else `usual_ns`.
    Bimodal { probability: f64, usual_ns: u64, rare_ns: u64 },
    /// These, in order, then from the start again. Never empty.
    Trace(Vec<u64>),
}

impl Distribution {
    /// Reads `fixed:1ms`, `exp:1ms`, `bimodal:0.1,1ms,50ms` or `trace:FILE`. `read` gives the content of a file, or
    /// says in one line why it cannot.
    ///
    /// # Errors
    /// One line that names the text and what is allowed.
    pub fn parse(text: &str, read: impl FnOnce(&str) -> Result<String, String>) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("fixed", time)) => duration(time).map(Self::Fixed),
            Some(("exp", mean)) => duration(mean).map(Self::Exponential),
            Some(("bimodal", rest)) => bimodal(rest),
            Some(("trace", file)) => trace(file, &read(file)?),
            _ => Err(format!("`{text}` is no distribution; {KINDS}")),
        }
    }

    /// The same in one spelling, so that equal distributions have equal words. Of a trace, a digest of its values.
    pub fn describe(&self) -> String {
        match self {
            Self::Fixed(ns) => format!("fixed:{}", exact(*ns)),
            Self::Exponential(ns) => format!("exp:{}", exact(*ns)),
            Self::Bimodal { probability, usual_ns, rare_ns } => {
                format!("bimodal:{probability},{},{}", exact(*usual_ns), exact(*rare_ns))
            }
            Self::Trace(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|ns| ns.to_le_bytes()).collect();
                format!("trace:{} ({} values)", fnv1a_hex(&bytes), values.len())
            }
        }
    }
}

fn duration(text: &str) -> Result<u64, String> {
    let ns = parse_duration_ns(text)?;
    if ns <= LONGEST_NS { Ok(ns) } else { Err(format!("time `{text}` is longer than 1h")) }
}

fn bimodal(text: &str) -> Result<Distribution, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let &[probability, usual, rare] = &parts[..] else {
        return Err(format!("`bimodal:{text}` needs a probability and two times, as in bimodal:0.1,1ms,50ms"));
    };
    let known = parse_decimal(probability.trim()).filter(|p| (0.0..=1.0).contains(p));
    let probability = known.ok_or_else(|| format!("`{probability}` is no probability; give 0 to 1"))?;
    Ok(Distribution::Bimodal { probability, usual_ns: duration(usual)?, rare_ns: duration(rare)? })
}

/// One duration a line; empty lines are skipped.
fn trace(file: &str, content: &str) -> Result<Distribution, String> {
    let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let values = lines.map(|(at, line)| duration(line.trim()).map_err(|e| format!("{file}, line {}: {e}", at + 1)));
    let values = values.collect::<Result<Vec<u64>, String>>()?;
    if values.is_empty() { Err(format!("{file} has no durations")) } else { Ok(Distribution::Trace(values)) }
}

/// A duration in the largest unit in which it is whole.
pub fn exact(ns: u64) -> String {
    let units = [("s", NS_PER_S), ("ms", NS_PER_MS), ("us", NS_PER_US)];
    let unit = units.iter().find(|(_, factor)| ns.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{ns}ns"), |(name, factor)| format!("{}{name}", ns / factor))
}

/// Values of a distribution, one after the other.
#[derive(Clone, Debug)]
pub struct Draws {
    distribution: Distribution,
    rng: Rng,
    /// Values of a trace that have been used.
    used: usize,
}

impl Draws {
    pub fn new(distribution: Distribution, seed: u64) -> Self {
        Self { distribution, rng: Rng::new(seed), used: 0 }
    }

    /// The next one, in nanoseconds.
    pub fn next_ns(&mut self) -> u64 {
        match &self.distribution {
            Distribution::Fixed(ns) => *ns,
            Distribution::Exponential(mean) => self.rng.exponential(*mean as f64).round() as u64,
            Distribution::Bimodal { probability, usual_ns, rare_ns } => {
                if self.rng.unit() <= *probability {
                    *rare_ns
                } else {
                    *usual_ns
                }
            }
            Distribution::Trace(values) => {
                let ns = values[self.used % values.len()];
                self.used += 1;
                ns
            }
        }
    }
}

/// The last `length_ns` of every `period_ns`, counted from the first request: no reply is released then, and what would
/// have been is released when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    length_ns: u64,
    period_ns: u64,
}

impl Stall {
    /// Reads `1s/10s`: one second in every ten.
    ///
    /// # Errors
    /// One line, where that is not two times or the first is not the shorter one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (length, period) =
            text.split_once('/').ok_or_else(|| format!("`{text}` is no stall; give LENGTH/PERIOD, as in 1s/10s"))?;
        let (length_ns, period_ns) = (duration(length)?, duration(period)?);
        if length_ns == 0 || length_ns >= period_ns {
            return Err(format!("stall `{text}`: its length must be more than 0 and less than its period"));
        }
        Ok(Self { length_ns, period_ns })
    }

    pub fn describe(&self) -> String {
        format!("{}/{}", exact(self.length_ns), exact(self.period_ns))
    }

    /// When what is due at `due` is released, if the first request arrived at `first`.
    pub fn release(&self, first: Instant, due: Instant) -> Instant {
        let within = due.since(first) % self.period_ns;
        let stalled = within >= self.period_ns - self.length_ns;
        if stalled { due.after(self.period_ns - within) } else { due }
    }
}

/// What a server is told to inject.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Injection {
    /// Of the one resource, for which requests queue.
    pub service_time: Option<Distribution>,
    /// Of each request by itself, after its service.
    pub delay: Option<Distribution>,
    pub stall: Option<Stall>,
    pub seed: u64,
}

impl Injection {
    /// Whether there is nothing to inject.
    pub fn is_empty(&self) -> bool {
        self.service_time.is_none() && self.delay.is_none() && self.stall.is_none()
    }

    /// What there is, each in one spelling (`service-time=fixed:1ms`); without the seed.
    pub fn describe(&self) -> Vec<String> {
        let service_time = self.service_time.as_ref().map(|of| format!("service-time={}", of.describe()));
        let delay = self.delay.as_ref().map(|of| format!("delay={}", of.describe()));
        let stall = self.stall.map(|of| format!("stall={}", of.describe()));
        [service_time, delay, stall].into_iter().flatten().collect()
    }
}

/// The virtual resource: one, first in, first out.
#[derive(Clone, Debug)]
pub struct Resource {
    service_time: Draws,
    delay: Draws,
    stall: Option<Stall>,
    first: Option<Instant>,
    busy_until: Instant,
}

/// A request's way through the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Its service begins: when it arrived, or when the request before it had been served.
    pub start: Instant,
    /// Its reply may leave: service, delay and stalls are over.
    pub done: Instant,
    pub service_ns: u64,
    pub delay_ns: u64,
    /// A stall held it back.
    pub stalled: bool,
}

impl Resource {
    pub fn new(injection: &Injection) -> Self {
        let draws = |of: &Option<Distribution>, seed| Draws::new(of.clone().unwrap_or(Distribution::Fixed(0)), seed);
        let [service_seed, delay_seed] = Self::seeds(injection.seed);
        Self {
            service_time: draws(&injection.service_time, service_seed),
            delay: draws(&injection.delay, delay_seed),
            stall: injection.stall,
            first: None,
            busy_until: Instant(0),
        }
    }

    /// The seeds from which service times and delays are drawn: far from each other in the generator's sequence, and
    /// from where `seed` itself begins, from which a client may draw its arrivals.
    pub fn seeds(seed: u64) -> [u64; 2] {
        let mut rng = Rng::new(!seed);
        [rng.next_u64(), rng.next_u64()]
    }

    /// A request arrives. The order of calls is the order of service.
    pub fn admit(&mut self, now: Instant) -> Passage {
        let first = *self.first.get_or_insert(now);
        let (service_ns, delay_ns) = (self.service_time.next_ns(), self.delay.next_ns());
        let start = now.max(self.busy_until);
        self.busy_until = start.after(service_ns);
        let due = self.busy_until.after(delay_ns);
        let done = self.stall.map_or(due, |stall| stall.release(first, due));
        Passage { start, done, service_ns, delay_ns, stalled: done != due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Distribution, String> {
        Distribution::parse(text, |file| match file {
            "numbers" => Ok("1ms\n\n 250us\n3ns\n".to_owned()),
            "empty" => Ok("\n".to_owned()),
            "broken" => Ok("1ms\n2\n".to_owned()),
            _ => Err(format!("cannot read {file}")),
        })
    }

    #[test]
    fn distributions_are_read_and_told() {
        let bimodal = Distribution::Bimodal { probability: 0.1, usual_ns: 1_000_000, rare_ns: 50_000_000 };
        for (text, value, told) in [
            ("fixed:1ms", Distribution::Fixed(1_000_000), "fixed:1ms"),
            ("fixed:0s", Distribution::Fixed(0), "fixed:0s"),
            ("exp:1500us", Distribution::Exponential(1_500_000), "exp:1500us"),
            ("exp:1.5ms", Distribution::Exponential(1_500_000), "exp:1500us"),
            ("bimodal:0.10,1ms,0.05s", bimodal, "bimodal:0.1,1ms,50ms"),
            ("trace:numbers", Distribution::Trace(vec![1_000_000, 250_000, 3]), "trace:fb7f452658b77770 (3 values)"),
        ] {
            let parsed = parse(text).unwrap();
            assert_eq!(parsed, value, "{text}");
            assert_eq!(parsed.describe(), told);
        }
    }

    #[test]
    fn nonsense_is_refused_in_one_line() {
        for (text, word) in [
            ("1ms", "fixed:TIME"),
            ("gauss:1ms", "gauss"),
            ("fixed:1", "did you mean 1s"),
            ("fixed:-1ms", "negative"),
            ("fixed:", "empty"),
            ("fixed:2h", "longer than 1h"),
            ("exp:nan", "not a number"),
            ("bimodal:0.1,1ms", "two times"),
            ("bimodal:1.1,1ms,2ms", "1.1"),
            ("bimodal:nan,1ms,2ms", "nan"),
            ("bimodal:-0.1,1ms,2ms", "-0.1"),
            ("trace:nowhere", "cannot read nowhere"),
            ("trace:empty", "no durations"),
            ("trace:broken", "line 2"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(word) && !problem.contains('\n'), "{text}: {problem}");
        }
        for text in ["1s", "1s/", "/1s", "0s/1s", "1s/1s", "2s/1s", "1/10"] {
            assert!(!Stall::parse(text).unwrap_err().contains('\n'), "{text}");
        }
    }

    #[test]
    fn exponential_times_have_their_mean_and_quantiles() {
        const COUNT: usize = 200_000;
        let mut draws = Draws::new(Distribution::Exponential(NS_PER_MS), 1);
        let mut values: Vec<u64> = (0..COUNT).map(|_| draws.next_ns()).collect();
        values.sort_unstable();
        let mean = values.iter().sum::<u64>() as f64 / COUNT as f64;
        assert!((mean / 1e6 - 1.0).abs() < 0.01, "{mean}"); // standard error 0.22 %
        for (q, tolerance) in [(0.5, 0.02), (0.9, 0.02), (0.99, 0.04), (0.999, 0.1)] {
            let (got, want) = (values[(COUNT as f64 * q) as usize] as f64, -1e6 * f64::ln(1.0 - q));
            assert!((got / want - 1.0).abs() < tolerance, "{q}: {got}, not {want}");
        }
    }

    #[test]
    fn bimodal_times_are_two_in_their_proportion() {
        let of = |probability| Distribution::Bimodal { probability, usual_ns: 1, rare_ns: 50 };
        let count = |probability| {
            let mut draws = Draws::new(of(probability), 1);
            let values: Vec<u64> = (0..100_000).map(|_| draws.next_ns()).collect();
            assert!(values.iter().all(|ns| [1, 50].contains(ns)));
            values.iter().filter(|ns| **ns == 50).count()
        };
        assert!((9_600..10_400).contains(&count(0.1)), "{}", count(0.1)); // standard deviation 95
        assert_eq!((count(0.0), count(1.0)), (0, 100_000));
    }

    #[test]
    fn a_trace_begins_anew_when_it_is_over() {
        let mut draws = Draws::new(parse("trace:numbers").unwrap(), 1);
        let values: Vec<u64> = (0..5).map(|_| draws.next_ns()).collect();
        assert_eq!(values, [1_000_000, 250_000, 3, 1_000_000, 250_000]);
    }

    /// W(i) = max(0, W(i-1) + S(i-1) - A(i)), with A(i) the time between two arrivals.
    #[test]
    fn waiting_times_follow_lindley() {
        let injection = Injection {
            service_time: Some(Distribution::Exponential(700)),
            delay: Some(Distribution::Exponential(300)),
            stall: None,
            seed: 9,
        };
        let mut resource = Resource::new(&injection);
        let [service_seed, delay_seed] = Resource::seeds(9);
        let mut service = Draws::new(Distribution::Exponential(700), service_seed);
        let mut delay = Draws::new(Distribution::Exponential(300), delay_seed);
        let mut arrivals = Rng::new(5);
        let (mut now, mut wait, mut waited) = (Instant(1_000), 0_i64, 0);
        for _ in 0..10_000 {
            let passage = resource.admit(now);
            let (service_ns, delay_ns) = (service.next_ns(), delay.next_ns());
            assert_eq!((passage.service_ns, passage.delay_ns, passage.stalled), (service_ns, delay_ns, false));
            assert_eq!(passage.start, now.after(wait as u64));
            assert_eq!(passage.done, passage.start.after(service_ns + delay_ns));
            waited += u64::from(wait > 0);
            let between = arrivals.exponential(1_000.0) as u64;
            now = now.after(between);
            wait = (wait + service_ns as i64 - between as i64).max(0);
        }
        // Of arrivals at random a share of rho = 0.7 finds the resource busy.
        assert!((6_500..7_500).contains(&waited), "{waited}");
    }

    /// M/M/1: the mean time from arrival to end is S / (1 - rho).
    #[test]
    fn a_queue_with_random_arrivals_has_the_mean_of_its_closed_form() {
        let service_time = Some(Distribution::Exponential(2 * NS_PER_MS));
        let mut resource = Resource::new(&Injection { service_time, ..Injection::default() });
        let mut arrivals = Rng::new(77);
        let (mut now, mut total_ns) = (Instant(0), 0);
        const COUNT: u64 = 600_000;
        for _ in 0..COUNT {
            total_ns += resource.admit(now).done.since(now);
            now = now.after(arrivals.exponential(4e6) as u64);
        }
        let mean = total_ns as f64 / COUNT as f64;
        assert!((mean / 4e6 - 1.0).abs() < 0.015, "{mean}"); // standard error 0.35 %
    }

    #[test]
    fn a_stall_holds_back_what_is_due_in_the_last_part_of_its_period() {
        let stall = Stall::parse("2us/10us").unwrap();
        let first = Instant(500);
        for (due, released) in [(500, 500), (8_499, 8_499), (8_500, 10_500), (10_499, 10_500), (10_500, 10_500)] {
            assert_eq!(stall.release(first, Instant(due)), Instant(released), "{due}");
            let later = stall.release(first, Instant(due + 30_000));
            assert_eq!(later, Instant(released + 30_000), "{due}");
        }
        assert_eq!(stall.describe(), "2us/10us");

        let mut resource = Resource::new(&Injection { stall: Some(stall), ..Injection::default() });
        let done: Vec<_> = [500, 8_000, 8_600, 9_000, 10_600].map(|at| resource.admit(Instant(at))).to_vec();
        assert_eq!(done.iter().map(|p| p.done.0).collect::<Vec<_>>(), [500, 8_000, 10_500, 10_500, 10_600]);
        assert_eq!(done.iter().filter(|p| p.stalled).count(), 2);
    }

    /// Uniform arrivals at a fast server: the mean is L * L / (2 N), and quantile q is max(0, L - N (1 - q)).
    #[test]
    fn stalls_have_their_closed_form() {
        let stall = Stall::parse("1s/10s").ok();
        let mut resource = Resource::new(&Injection { stall, ..Injection::default() });
        let arrivals = (0..60_000).map(|n| Instant(n * NS_PER_MS));
        let mut waits: Vec<u64> = arrivals.map(|now| resource.admit(now).done.since(now)).collect();
        waits.sort_unstable();
        let mean_ms = waits.iter().sum::<u64>() / 60_000 / NS_PER_MS;
        let quantile_ms = |q: usize| waits[60 * q] / NS_PER_MS;
        assert_eq!((mean_ms, quantile_ms(900)), (50, 1));
        assert_eq!((quantile_ms(950), quantile_ms(990), quantile_ms(999)), (501, 901, 991));
    }
}
