//! Damaged files: no prefix and no corruption of a report or a bundle passes for one, and nothing panics.

mod corrupt;

use corrupt::corrupted;
use loadgen_core::histogram::Recorder;
use loadgen_core::metric::METRICS;
use loadgen_core::report::FORMATS;
use loadgen_core::result::read::{Document, parse_document, read_document};
use loadgen_core::result::{Bundle, Histogram, Report};
use loadgen_core::rng::Rng;
use serde_json::Value;
use std::path::Path;

const CORRUPTIONS: usize = 10_000;
/// Of the golden files, which are long.
const FEWER: usize = 1_000;

fn golden(name: &str) -> (Vec<u8>, Document) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    (std::fs::read(&path).unwrap(), read_document(&path).unwrap())
}

fn golden_report() -> Report {
    let (_, Document::Report(report)) = golden("result-1.json") else { panic!("it is a report") };
    *report
}

/// A report as this version writes it, with every chapter.
fn report() -> Report {
    let mut report = golden_report();
    report.tool.version = "0.2.0".to_owned();
    // Unpacking histograms is most of the time that these tests take.
    let mut recorder = Recorder::new();
    (0..100).for_each(|i| recorder.record(900 + i));
    (report.latency.response, report.latency.service, report.latency.connect) = (recorder.report(), None, None);
    report
}

/// One block of the golden bundle: what an interruption leaves.
fn bundle() -> Bundle {
    let (_, Document::Bundle(mut bundle)) = golden("bundle-1.json") else { panic!("it is a bundle") };
    bundle.partial = true;
    bundle.runs.truncate(4);
    bundle.runs[1..].iter_mut().for_each(|run| run.latency.response = None);
    *bundle
}

/// Without the layout: a fraction of the bytes, and every one of them counts.
fn compact(text: &str) -> Vec<u8> {
    serde_json::from_str::<Value>(text).unwrap().to_string().into_bytes()
}

/// The complaint about a text; None where it is taken.
fn complaint(text: &[u8]) -> Option<String> {
    let complaint = parse_document(text).err()?.to_string();
    assert!(!complaint.is_empty() && !complaint.trim_end().contains('\n'), "{complaint}");
    Some(complaint)
}

fn no_prefix_passes(text: &[u8], step: usize) {
    for end in (0..text.trim_ascii_end().len()).step_by(step) {
        let complaint = complaint(&text[..end]).unwrap_or_else(|| panic!("cut at {end}, and taken"));
        let wanted = if end == 0 { "is empty" } else { "it was cut off" };
        assert!(complaint.contains(wanted), "cut at {end}: {complaint}");
    }
}

/// What is taken has the same content. Says how many were refused.
fn no_corruption_passes(text: &[u8], seed: u64, count: usize) -> usize {
    let original = parse_document(text).unwrap();
    let value: Value = serde_json::from_slice(text).unwrap();
    let mut rng = Rng::new(seed);
    let mut refused = 0;
    for number in 0..count {
        let damaged = corrupted(text, &mut rng);
        if complaint(&damaged).is_some() {
            refused += 1;
            continue;
        }
        let same = serde_json::from_slice::<Value>(&damaged).unwrap() == value;
        let taken = parse_document(&damaged).unwrap();
        assert!(same && taken == original, "seed {seed}, number {number} passes and says something else");
    }
    // Layout is the rest, digits that became themselves, and so on.
    assert!(refused > count * 8 / 10, "only {refused} of {count} were damage at all");
    refused
}

#[test]
fn no_prefix_of_a_report_passes() {
    no_prefix_passes(&compact(&report().to_json()), 1);
    no_prefix_passes(&golden("result-1.json").0, 1);
}

#[test]
fn no_prefix_of_a_bundle_passes() {
    no_prefix_passes(&compact(&bundle().to_json()), 1);
    // Four times as long, and sixteen times the work; the two differ in length only.
    no_prefix_passes(&golden("bundle-1.json").0, 101);
}

#[test]
fn no_corruption_of_a_report_passes() {
    let refused = no_corruption_passes(report().to_json().as_bytes(), 1, CORRUPTIONS);
    println!("report: {refused} of {CORRUPTIONS} refused, the others are the same");
}

#[test]
fn no_corruption_of_a_bundle_passes() {
    let refused = no_corruption_passes(bundle().to_json().as_bytes(), 2, CORRUPTIONS);
    println!("bundle: {refused} of {CORRUPTIONS} refused, the others are the same");
}

#[test]
fn no_corruption_of_the_golden_bundle_passes() {
    let refused = no_corruption_passes(&golden("bundle-1.json").0, 3, FEWER);
    println!("golden bundle: {refused} of {FEWER} refused, the others are the same");
}

/// Version 0.1 wrote no checksum: some damage to its reports cannot be seen, but nothing may break on it.
#[test]
fn no_corruption_of_an_old_report_breaks_anything() {
    let (text, original) = golden("result-1.json");
    let mut rng = Rng::new(4);
    let (mut refused, mut differ) = (0, 0);
    for _ in 0..FEWER {
        let damaged = corrupted(&text, &mut rng);
        match parse_document(&damaged) {
            Err(_) => refused += usize::from(complaint(&damaged).is_some()),
            Ok(document) if document == original => {}
            Ok(Document::Report(report)) => {
                differ += 1;
                render_all(&report);
            }
            Ok(Document::Bundle(_)) => panic!("a report is no bundle"),
        }
    }
    println!("golden report: {refused} of {FEWER} refused, {differ} passed and differ");
    assert!(refused > FEWER / 2);
}

/// The encoded buckets of a file without a checksum: nothing in front of the decoder notices.
#[test]
fn no_corruption_of_a_histogram_breaks_anything() {
    let good = report().latency.response.unwrap();
    let mut rng = Rng::new(5);
    for _ in 0..CORRUPTIONS {
        let hdr = String::from_utf8_lossy(&corrupted(good.hdr.as_bytes(), &mut rng)).into_owned();
        if let Err(complaint) = Recorder::from_report(&Histogram { hdr, ..good.clone() }) {
            assert!(!complaint.is_empty() && !complaint.contains('\n'), "{complaint}");
        }
    }
}

fn render_all(report: &Report) {
    for format in FORMATS {
        assert!((format.render)(std::slice::from_ref(report)).ends_with('\n'), "{}", format.name);
    }
    for metric in METRICS {
        let figures = (metric.value)(report).into_iter().chain((metric.interval)(report).map(|(low, _)| low));
        figures.for_each(|figure| assert!(figure.is_finite(), "{}", metric.name));
    }
}

/// Numbers that are possible in JSON and nowhere else: what is unlikely is still written down, not panicked about.
#[test]
fn every_format_survives_every_number() {
    let value = serde_json::to_value(report()).unwrap();
    let mut rng = Rng::new(6);
    let mut rendered = 0;
    for round in 0..1_000 {
        let mut changed = value.clone();
        make_extreme(&mut changed, 1 + round % 20, &mut rng);
        // Negative numbers are for some fields only.
        let Ok(report) = serde_json::from_value::<Report>(changed) else { continue };
        render_all(&report);
        // With a checksum that is right, what is left to complain about is what it says.
        complaint(report.to_json().as_bytes());
        rendered += 1;
    }
    assert!(rendered > 900, "{rendered}");
}

/// Replaces one of `one_in` numbers, and some text.
fn make_extreme(value: &mut Value, one_in: u64, rng: &mut Rng) {
    const NUMBERS: [u64; 8] = [0, 1, 999, 1 << 32, 1 << 53, u64::MAX / 10, i64::MAX as u64, u64::MAX];
    match value {
        Value::Number(number) if rng.below(one_in) == 0 => {
            *number = NUMBERS[rng.below(NUMBERS.len() as u64) as usize].into();
        }
        Value::String(text) if text.len() < 30 && rng.below(one_in * 20) == 0 => *text = "a\n\u{1b}[31m,\"ü".to_owned(),
        Value::Array(items) => items.iter_mut().for_each(|item| make_extreme(item, one_in, rng)),
        Value::Object(fields) => {
            // It is the same as `sum_ns`, or the histogram is refused; old files have that one only.
            fields.remove("sum");
            // `kernel` has signed ones.
            let fields = fields.iter_mut().filter(|(name, _)| name.as_str() != "kernel");
            fields.for_each(|(_, item)| make_extreme(item, one_in, rng));
        }
        _ => {}
    }
}
