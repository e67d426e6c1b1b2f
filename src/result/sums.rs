//! Numbers of a file that can be larger than every reader of JSON takes for the same, and how they are kept all the
//! same: a sum as decimal digits in a text, a time in a coarser unit.

use super::integers::MOST;
use super::schema::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// A histogram, whole, with what people ask of it first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Histogram")]
pub(super) struct Stored {
    count: u64,
    /// Exact, like max, mean (rounded down) and sum.
    min_ns: u64,
    mean_ns: u64,
    max_ns: u64,
    /// Left out where it is more than 2^53 - 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum_ns: Option<u64>,
    /// The same as decimal digits, however large; files before version 0.3 have `sum_ns` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<String>,
    /// By quantile (`"0.99"`), within 0.1 %.
    quantiles_ns: BTreeMap<String, u64>,
    /// HdrHistogram V2 compressed, 3 significant digits, base64.
    hdr: String,
}

impl From<Histogram> for Stored {
    fn from(histogram: Histogram) -> Self {
        let Histogram { count, min_ns, mean_ns, max_ns, sum_ns: sum, quantiles_ns, hdr } = histogram;
        let sum_ns = Some(sum).filter(|sum| *sum <= MOST);
        Self { count, min_ns, mean_ns, max_ns, sum_ns, sum: Some(sum.to_string()), quantiles_ns, hdr }
    }
}

impl TryFrom<Stored> for Histogram {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let Stored { count, min_ns, mean_ns, max_ns, sum_ns, sum, quantiles_ns, hdr } = stored;
        let stated = match &sum {
            Some(digits) => Some(digits.parse().map_err(|_| format!("its sum \"{digits}\" is no number"))?),
            None => None,
        };
        let sum_ns = match (stated, sum_ns) {
            (Some(sum), Some(sum_ns)) if sum != sum_ns => {
                return Err(format!("its sum is \"{sum}\", and its sum_ns is {sum_ns}"));
            }
            (None, None) => return Err("missing field `sum_ns`".to_owned()),
            (stated, sum_ns) => stated.or(sum_ns).unwrap_or_default(),
        };
        Ok(Self { count, min_ns, mean_ns, max_ns, sum_ns, quantiles_ns, hdr })
    }
}

/// Microseconds since 1970. Versions before 0.3 wrote nanoseconds, under another key: since April 1970 those are more
/// than any number of microseconds until 2255.
pub(super) fn since_1970<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let time = Option::<u64>::deserialize(deserializer)?;
    Ok(time.map(|time| if time > MOST { time / 1_000 } else { time }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Recorder;
    use crate::result::Phases;

    fn stored(sum_ns: u64) -> serde_json::Value {
        let histogram = Histogram { count: 3, sum_ns, ..Histogram::default() };
        let content = serde_json::to_value(&histogram).unwrap();
        assert_eq!(serde_json::from_value::<Histogram>(content.clone()).unwrap(), histogram);
        content
    }

    #[test]
    fn a_sum_is_exact_in_a_text_at_any_size() {
        let small = stored(MOST);
        assert_eq!((small["sum_ns"].as_u64(), small["sum"].as_str()), (Some(MOST), Some("9007199254740991")));
        let large = stored(MOST + 1);
        assert!(large.get("sum_ns").is_none() && large["sum"] == "9007199254740992");
        // What version 0.2 wrote.
        let mut old = stored(7);
        old.as_object_mut().unwrap().remove("sum");
        assert_eq!(serde_json::from_value::<Histogram>(old.clone()).unwrap().sum_ns, 7);
        for (key, value, why) in [
            ("sum", "8".into(), "its sum_ns is 7"),
            ("sum", "x".into(), "is no number"),
            ("sum_ns", serde_json::Value::Null, "missing field `sum_ns`"),
        ] {
            let mut wrong = old.clone();
            wrong[key] = value;
            let told = serde_json::from_value::<Histogram>(wrong).unwrap_err().to_string();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_histogram_whose_sum_passes_the_bound_is_read_back_whole() {
        let mut recorder = Recorder::new();
        (0..4).for_each(|_| recorder.record(3_000_000_000_000_000));
        let report = recorder.report().unwrap();
        let text = serde_json::to_string(&report).unwrap();
        assert!(!text.contains("sum_ns") && text.contains("\"12000000000000000\""), "{text}");
        assert_eq!(Recorder::from_report(&serde_json::from_str(&text).unwrap()).unwrap().report().unwrap(), report);
    }

    #[test]
    fn a_time_is_read_under_both_keys() {
        let phases = |key: &str, value: u64| -> Phases {
            let text = format!("{{\"ramp_ns\":0,\"warmup_ns\":0,\"measure_ns\":0,\"drain_ns\":0,\"{key}\":{value}}}");
            serde_json::from_str(&text).unwrap()
        };
        let new = phases("window_started_unix_us", 1_795_438_961_129_100);
        assert_eq!(new.window_started_unix_us, Some(1_795_438_961_129_100));
        assert_eq!(phases("window_started_unix_ns", 1_795_438_961_129_100_999), new);
    }
}
