//! What users do: how long they think, how they come and go, and how they leave.

use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::service_time::Distribution;
use crate::units;
use std::sync::Arc;

/// Requests of one session, at most.
const LENGTH_MAX: u64 = 1_000_000_000;

/// How many requests a session has.
#[derive(Clone, Debug, PartialEq)]
pub enum Lengths {
    Fixed(u32),
    /// From the first to the second, each as likely as the others.
    Between(u32, u32),
    /// Each request is the last with this probability.
    Geometric(f64),
}

impl Lengths {
    /// Reads `5`, `1..20` or `geom:0.2`.
    ///
    /// # Errors
    /// One line that says what there is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| match units::parse_count(text)? {
            number @ 1..=LENGTH_MAX => Ok(number as u32),
            number => Err(format!("{number} is out of range; a session has 1 to {LENGTH_MAX} requests")),
        };
        if let Some(probability) = text.strip_prefix("geom:") {
            let known = units::parse_decimal(probability).filter(|p| (1e-6..=1.0).contains(p));
            return known.map(Self::Geometric).ok_or_else(|| {
                format!("'{probability}' is no probability of a session's end; give geom:0.000001 to geom:1")
            });
        }
        match text.split_once("..") {
            None => number(text).map(Self::Fixed),
            Some((least, most)) => match (number(least)?, number(most)?) {
                (least, most) if least <= most => Ok(Self::Between(least, most)),
                _ => Err(format!("'{text}' ends before it begins")),
            },
        }
    }

    /// The same in one spelling.
    pub fn describe(&self) -> String {
        match self {
            Self::Fixed(number) => number.to_string(),
            Self::Between(least, most) => format!("{least}..{most}"),
            Self::Geometric(probability) => format!("geom:{probability}"),
        }
    }

    /// The next session's.
    pub fn draw(&self, rng: &mut Rng) -> u32 {
        match *self {
            Self::Fixed(number) => number,
            Self::Between(least, most) => least + rng.below(u64::from(most - least) + 1) as u32,
            // By inversion: P(length > n) = (1 - p)^n. A probability of 1 gives 0 / -inf, and so 1.
            Self::Geometric(p) => ((rng.unit().ln() / (-p).ln_1p()).floor() as u32).saturating_add(1),
        }
    }
}

/// Sessions that arrive by a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Sessions {
    pub lengths: Lengths,
    /// Each opens a connection of its own.
    pub fresh: bool,
}

/// What was asked for, in the words of a plan.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    pub think: Option<Distribution>,
    /// Where steps of its scripts have think times of their own.
    pub scripts: Option<Arc<Scenario>>,
    pub sessions: Option<Sessions>,
    /// Connections are closed by a reset.
    pub reset: bool,
}

impl Traffic {
    /// Whether there is a think time before any request.
    pub fn thinks(&self) -> bool {
        self.think.is_some() || self.scripts.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_refused() {
        for (text, lengths) in [
            ("5", Lengths::Fixed(5)),
            ("1k", Lengths::Fixed(1000)),
            ("1..20", Lengths::Between(1, 20)),
            ("geom:0.2", Lengths::Geometric(0.2)),
        ] {
            assert_eq!(Lengths::parse(text), Ok(lengths.clone()));
            assert_eq!(Lengths::parse(&lengths.describe()), Ok(lengths));
        }
        for wrong in ["", "0", "-1", "3..2", "0..2", "geom:0", "geom:1.1", "geom:nan", "geom:", "exp:3", "2..", "10G"] {
            let problem = Lengths::parse(wrong).unwrap_err();
            assert!(!problem.contains('\n') && !problem.is_empty(), "{wrong}");
        }
    }

    #[test]
    fn lengths_have_their_mean_and_their_bounds() {
        let mut rng = Rng::new(5);
        let mut draws = |lengths: Lengths| (0..100_000).map(|_| lengths.draw(&mut rng)).collect::<Vec<u32>>();
        assert!(draws(Lengths::Fixed(3)).iter().all(|n| *n == 3));
        assert!(draws(Lengths::Geometric(1.0)).iter().all(|n| *n == 1));
        let mean = |draws: &[u32]| draws.iter().map(|n| f64::from(*n)).sum::<f64>() / 1e5;
        let between = draws(Lengths::Between(2, 6));
        assert!(between.iter().all(|n| (2..=6).contains(n)) && (mean(&between) - 4.0).abs() < 0.03);
        let geometric = draws(Lengths::Geometric(0.25));
        // Mean 1 / p; the standard error is sqrt(1 - p) / p / sqrt(1e5) = 0.011.
        assert!((mean(&geometric) - 4.0).abs() < 0.05, "{}", mean(&geometric));
        let once = geometric.iter().filter(|n| **n == 1).count();
        assert!((24_000..26_000).contains(&once), "{once}");
        assert!(geometric.iter().all(|n| *n >= 1));
    }
}
