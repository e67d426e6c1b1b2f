//! Latency against load, drawn with characters.

use super::schema::{Found, Probe, ProbeVerdict};
use super::slo::Slo;
use crate::units::{format_count, format_duration};

const COLUMNS: usize = 64;
const ROWS: usize = 14;

/// The median `o` and the 99th percentile `x` of each probe, the limit as a dotted line, and the knee as a column;
/// latency is logarithmic. Empty where there are fewer than two rates.
pub fn draw(found: &Found) -> String {
    let usable = |probe: &&Probe| probe.rate_per_s.is_some() && probe.verdict != ProbeVerdict::Unusable;
    let probes: Vec<&Probe> = found.probes.iter().filter(usable).collect();
    let rates = || probes.iter().filter_map(|probe| probe.rate_per_s);
    let values = || probes.iter().flat_map(|probe| [probe.p50_ns, probe.p99_ns]).flatten().filter(|ns| *ns > 0);
    let limits: Vec<u64> =
        found.slos.iter().filter_map(|slo| Some(Slo::parse(slo).ok()?.response_quantile()?.1)).collect();
    let (Some(most), Some(low), Some(high)) = (
        rates().max().filter(|most| rates().any(|rate| rate != *most)),
        values().chain(limits.iter().copied()).min(),
        values().chain(limits.iter().copied()).max(),
    ) else {
        return String::new();
    };
    let scale = Scale { most, low: (low as f64).ln(), high: (high as f64 * 1.01).ln() };
    let mut cells = vec![vec![' '; COLUMNS]; ROWS];
    if let Some(knee) = &found.knee {
        cells.iter_mut().for_each(|row| row[scale.column(knee.rate_per_s)] = '|');
    }
    for limit in &limits {
        cells[scale.row(*limit)].iter_mut().step_by(2).for_each(|cell| *cell = '.');
    }
    for (mark, figure) in [('o', (|p| p.p50_ns) as fn(&Probe) -> Option<u64>), ('x', |p| p.p99_ns)] {
        for probe in &probes {
            if let (Some(rate), Some(ns)) = (probe.rate_per_s, figure(probe).filter(|ns| *ns > 0)) {
                cells[scale.row(ns)][scale.column(rate)] = mark;
            }
        }
    }
    let mut text = String::from("latency (logarithmic) against load: o p50, x p99, . the limit, | the knee\n");
    for (index, row) in cells.iter().enumerate() {
        let label =
            if index % 4 == 0 || index == ROWS - 1 { format_duration(scale.value(index)) } else { String::new() };
        let line: String = row.iter().collect();
        text.push_str(format!("{label:>9} |{line}").trim_end());
        text.push('\n');
    }
    let (middle, most) = (format!("{}/s", format_count(most / 2)), format!("{}/s", format_count(most)));
    text.push_str(&format!("{:>9} +{}\n", "", "-".repeat(COLUMNS)));
    text.push_str(&format!("{:>10} 0{middle:>width$}{most:>width$}\n", "", width = COLUMNS / 2 - 1));
    text
}

struct Scale {
    most: u64,
    /// Logarithms of nanoseconds.
    low: f64,
    high: f64,
}

impl Scale {
    fn column(&self, rate: u64) -> usize {
        ((rate as f64 / self.most as f64 * (COLUMNS - 1) as f64).round() as usize).min(COLUMNS - 1)
    }

    /// The highest value is in the first row.
    fn row(&self, ns: u64) -> usize {
        let part = ((ns as f64).ln() - self.low) / (self.high - self.low);
        (((1.0 - part.clamp(0.0, 1.0)) * (ROWS - 1) as f64).round() as usize).min(ROWS - 1)
    }

    /// The value in the middle of a row.
    fn value(&self, row: usize) -> u64 {
        (self.high - (self.high - self.low) * row as f64 / (ROWS - 1) as f64).exp() as u64
    }
}
