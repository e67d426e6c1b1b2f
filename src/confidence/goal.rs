//! `--until-ci`: how narrow which interval is to become.

use super::Sample;
use crate::histogram::QUANTILES;
use crate::result::{Confidence, UntilCi, integers};
use crate::units::parse_decimal;

/// A figure by the name that people type, and the half-width of its interval that they want, in millionths of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    pub figure: String,
    pub asked_ppm: u64,
}

const PPM: f64 = 1_000_000.0;

impl Goal {
    /// Reads `p99=2%` or several, as in `p50=1%,rate=0.5%`.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut goals: Vec<Self> = Vec::new();
        for part in text.split(',') {
            let goal = Self::parse(part.trim())?;
            if goals.iter().any(|other| other.figure == goal.figure) {
                return Err(format!("'{}' is there twice", goal.figure));
            }
            goals.push(goal);
        }
        Ok(goals)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (figure, width) =
            text.split_once('=').ok_or_else(|| format!("'{text}' is not FIGURE=WIDTH%, such as p99=2%"))?;
        if !names().any(|name| name == figure) {
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(format!("'{figure}' is not known; there are {known}"));
        }
        let percent: f64 = width
            .strip_suffix('%')
            .and_then(parse_decimal)
            .ok_or_else(|| format!("'{width}' is not a width in percent, such as 2% or 0.5%"))?;
        let asked_ppm = (percent * PPM / 100.0).round() as u64;
        if !(1..=PPM as u64).contains(&asked_ppm) {
            return Err(format!("a width of {width} is out of range; it takes 0.0001% to 100%"));
        }
        Ok(Self { figure: figure.to_owned(), asked_ppm })
    }

    /// How far a run has come.
    pub fn judge(&self, confidence: &Confidence, sample: &Sample<'_>) -> UntilCi {
        let quantile = QUANTILES.iter().find(|(name, _)| percentile(name) == self.figure);
        let (estimate, low, high) = match (quantile, self.figure.as_str()) {
            (Some((name, q)), _) => {
                let interval = confidence.quantiles.get(*name);
                (sample.response.quantile(*q), interval.and_then(|i| i.low_ns), interval.and_then(|i| i.high_ns))
            }
            (None, "mean") => (sample.response.mean_ns().unwrap_or(0), confidence.mean.low_ns, confidence.mean.high_ns),
            (None, _) => (sample.per_second() as u64, confidence.rate.low_per_s, confidence.rate.high_per_s),
        };
        let half_width_ppm = match (low, high) {
            (Some(low), Some(high)) if estimate > 0 => {
                Some((high.saturating_sub(low) as f64 / 2.0 / estimate as f64 * PPM).ceil().min(integers::MOST as f64)
                    as u64)
            }
            _ => None,
        };
        UntilCi {
            figure: self.figure.clone(),
            asked_ppm: self.asked_ppm,
            half_width_ppm,
            reached: half_width_ppm.is_some_and(|width| width <= self.asked_ppm),
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}%", self.figure, self.asked_ppm as f64 * 100.0 / PPM)
    }
}

/// The figures that have an interval.
fn names() -> impl Iterator<Item = String> {
    QUANTILES.iter().map(|(name, _)| percentile(name)).chain(["mean", "rate"].map(str::to_owned))
}

/// `0.999` is p99.9.
pub fn percentile(name: &str) -> String {
    let digits = name.trim_start_matches("0.");
    let (percent, rest) = digits.split_at(digits.len().min(2));
    let point = if rest.is_empty() { "" } else { "." };
    format!("p{percent:0<2}{point}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood() {
        let goals = Goal::parse_list("p99=2%, mean=0.5%,rate=10%,p99.99=0.001%").unwrap();
        let read: Vec<String> = goals.iter().map(Goal::to_string).collect();
        assert_eq!(read, ["p99=2%", "mean=0.5%", "rate=10%", "p99.99=0.001%"]);
        assert_eq!(goals[1].asked_ppm, 5_000);
        let all: Vec<String> = names().collect();
        assert_eq!(all, ["p50", "p90", "p95", "p99", "p99.9", "p99.99", "mean", "rate"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in
            ["", "p99", "p99=", "p99=2", "p98=2%", "p99=0%", "p99=101%", "p99=-1%", "p99=1e1%", "p99=nan%", "p50=1%,"]
        {
            let problem = Goal::parse_list(text).unwrap_err();
            assert!(!problem.is_empty() && !problem.contains('\n'), "{text}: {problem}");
        }
        assert!(Goal::parse_list("p99=1%,p99=2%").unwrap_err().contains("twice"));
    }
}
