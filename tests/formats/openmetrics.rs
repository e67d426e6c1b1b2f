//! The grammar of OpenMetrics 1.0, as far as we use it; and Python's own parser, where it is installed.

use super::python;
use loadgen_core::result::Report;
use std::collections::{BTreeMap, BTreeSet};

/// Suffixes of samples by type.
const SUFFIXES: &[(&str, &[&str])] = &[
    ("info", &["_info"]),
    ("stateset", &[""]),
    ("gauge", &[""]),
    ("counter", &["_total"]),
    ("histogram", &["_bucket", "_count", "_sum"]),
];

pub(crate) fn check(text: &str, reports: &[Report]) {
    let body = text.strip_suffix("# EOF\n").expect("ends with EOF");
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut family = ("", "");
    for line in body.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", name, kind] => {
                assert!(families.insert(name, kind).is_none(), "{name} is there twice");
                family = (name, kind);
            }
            ["#", "UNIT", name, unit] => assert!(name == family.0 && name.ends_with(&format!("_{unit}")), "{line}"),
            ["#", "HELP", name, _] => assert_eq!(name, family.0),
            _ => sample(line, family, &mut series),
        }
    }
    for (name, kind) in &families {
        if *kind == "histogram" {
            buckets(body, name);
        }
    }
    assert!(!body.contains("summary") && !body.contains("quantile"));
    let answered = reports.iter().filter_map(|report| report.latency.response.as_ref());
    let counted = body.lines().filter(|line| line.starts_with("loadgen_response_time_seconds_count{"));
    let counts: Vec<u64> = counted.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert_eq!(counts, answered.map(|response| response.count).collect::<Vec<_>>());
    parsed(text, families.len());
}

/// `name{label="value",…} number`, of the family that was announced, and no other of the same name and labels.
fn sample<'a>(line: &'a str, (name, kind): (&str, &str), series: &mut BTreeSet<&'a str>) {
    let (id, value) = line.rsplit_once(' ').unwrap();
    assert!(series.insert(id), "{id} is there twice");
    assert!(value.parse::<f64>().is_ok_and(|value| value.is_finite() && value >= 0.0), "{line}");
    let (full, labels) = id.split_once('{').unwrap();
    let suffixes = SUFFIXES.iter().find(|(of, _)| *of == kind).unwrap().1;
    assert!(suffixes.iter().any(|suffix| full == format!("{name}{suffix}")), "{line} is no {kind} {name}");
    let mut rest = labels.strip_suffix('}').unwrap();
    let mut names = BTreeSet::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").unwrap();
        let fit = label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        assert!(fit && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{label}");
        assert!(names.insert(label), "{label} is there twice: {line}");
        rest = after[end_of_value(after)..].strip_prefix('"').unwrap();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    assert!(names.contains("run") && names.contains("name"));
}

/// Where the closing quote is.
fn end_of_value(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                assert!(matches!(c, '\\' | '"' | 'n'), "\\{c} is no escape");
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    panic!("no end: {text}")
}

/// Counts never fall from bucket to bucket, and the last is all.
fn buckets(body: &str, name: &str) {
    let mut last = 0;
    for line in body.lines().filter(|line| line.starts_with(name)) {
        let (id, value) = line.rsplit_once(' ').unwrap();
        if id.starts_with(&format!("{name}_bucket")) {
            let count: u64 = value.parse().unwrap();
            assert!(count >= last, "{line}");
            last = count;
        } else if id.starts_with(&format!("{name}_count")) {
            assert_eq!(value.parse::<u64>().unwrap(), last);
            last = 0;
        }
    }
}

/// What Prometheus' own Python library makes of it.
fn parsed(text: &str, families: usize) {
    const PARSE: &str = "import sys\n\
        try:\n from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        except ImportError:\n sys.stdin.buffer.read(); print('none'); sys.exit()\n\
        print(len(list(parse(sys.stdin.buffer.read().decode()))))";
    match python(PARSE, text).as_deref().map(str::trim) {
        None | Some("none") => {
            let required = std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_some();
            assert!(!required, "python3-prometheus-client is not installed");
            eprintln!("skipped: prometheus_client, which would read the same, is not installed");
        }
        Some(read) => assert_eq!(read.parse::<usize>().unwrap(), families),
    }
}
