//! A limit of `--slo`: what is wanted, `p99<5ms`, where `--fail-if` says what is not.

use crate::confidence::goal;
use crate::histogram::QUANTILES;
use crate::limit::{Bound, Limit};
use crate::metric::{Better, Metric, Unit};
use std::fmt;

/// What has to hold at a rate.
#[derive(Clone, Debug)]
pub struct Slo {
    text: String,
    /// The same the other way round: what breaks it.
    pub broken_if: Limit,
}

/// What the search has no use for, although a run has it.
const USELESS: &[(&str, &str)] = &[
    ("server_cpu", "a probe does not know the CPU time of the server"),
    ("client_cpu", "it is about the generator, not about the target"),
    ("lag_p99", "it is about the generator, not about the target"),
];

impl Slo {
    /// Reads `p99<5ms`, `p99.9<=10ms`, `errors=0` or `error_share<0.1%`.
    ///
    /// # Errors
    /// One line that says what is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let Some(at) = text.find(['<', '>', '=']) else {
            // An unquoted `p99<5ms` arrives as `p99`: the shell took the rest.
            return Err(format!("`{text}` has no <, <= or =; write it in quotes: 'p99<5ms'"));
        };
        let (name, rest) = text.split_at(at);
        let digits = rest.trim_start_matches(['<', '>', '=']);
        let operator = &rest[..rest.len() - digits.len()];
        let opposite = match operator {
            "<" => ">=",
            "<=" => ">",
            "=" if digits.trim() == "0" => ">",
            "=" => return Err(format!("`{text}`: = is for what is to be 0, as in errors=0; write <=")),
            _ => return Err(format!("`{text}` must say what is wanted, with <, <= or =: 'p99<5ms'")),
        };
        // The value's own troubles come out of the limit's parser; they should show what was typed.
        let limit = format!("{name}{opposite}{digits}");
        let broken_if = Limit::parse(&limit).map_err(|why| why.replace(&format!("`{limit}`"), &format!("`{text}`")))?;
        let metric = broken_if.metric;
        if metric.better == Better::Higher {
            return Err(format!("`{text}`: {} is what the search turns; limit what it costs: 'p99<5ms'", metric.name));
        }
        if let Some((_, why)) = USELESS.iter().find(|(name, _)| *name == metric.name) {
            return Err(format!("`{text}`: {why}"));
        }
        match broken_if.bound {
            Bound::Change(_) => Err(format!("`{text}`: a change takes a base; give a value: 'p99<5ms'")),
            Bound::Value(value) if value <= 0.0 && metric.unit == Unit::Nanoseconds => {
                Err(format!("`{text}`: nothing takes no time"))
            }
            Bound::Value(_) => Ok(Self { text: text.to_owned(), broken_if }),
        }
    }

    /// The quantile of response times that is limited, and the limit in nanoseconds; None: another figure.
    pub fn response_quantile(&self) -> Option<(f64, u64)> {
        let Bound::Value(limit) = self.broken_if.bound else { return None };
        quantile(self.broken_if.metric).map(|q| (q, limit as u64))
    }
}

/// The quantile of the response times that the metric is.
fn quantile(metric: &Metric) -> Option<f64> {
    QUANTILES.iter().find(|(name, _)| goal::percentile(name) == metric.name).map(|(_, q)| *q)
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Op;

    #[test]
    fn what_is_wanted_breaks_the_other_way_round() {
        for (text, op, value, quantile) in [
            ("p99<5ms", Op::AtLeast, 5e6, Some((0.99, 5_000_000))),
            (" p99.9 <= 250us ", Op::Above, 250e3, Some((0.999, 250_000))),
            ("errors=0", Op::Above, 0.0, None),
            ("error_share<0.1%", Op::AtLeast, 0.001, None),
            ("mean<1ms", Op::AtLeast, 1e6, None),
            ("service_p99<1ms", Op::AtLeast, 1e6, None),
        ] {
            let slo = Slo::parse(text).unwrap();
            assert_eq!((slo.broken_if.op, slo.broken_if.bound), (op, Bound::Value(value)), "{text}");
            assert_eq!((slo.response_quantile(), slo.to_string()), (quantile, text.trim().to_owned()));
        }
    }

    #[test]
    fn nonsense_is_refused_in_one_line() {
        for (text, words) in [
            ("p99", "in quotes"),
            ("p99>5ms", "what is wanted"),
            ("p99==5ms", "what is wanted"),
            ("p99=5ms", "write <="),
            ("p98<5ms", "not known"),
            ("p99<5", "`p99<5`"),
            ("p99<+5%", "takes a base"),
            ("p99<0ms", "no time"),
            ("rate<5k", "what the search turns"),
            ("client_cpu<5us", "generator"),
            ("server_cpu<5us", "CPU time"),
        ] {
            let problem = Slo::parse(text).unwrap_err();
            assert!(problem.contains(words) && !problem.contains('\n'), "{text}: {problem}");
        }
    }
}
