//! Files that other tools have read and written again: the same content is the same report.

use loadgen_core::histogram::Recorder;
use loadgen_core::result::read::{Document, parse_document, read_document, read_run};
use loadgen_core::result::{Bundle, Report, bundle_schema_json, integers, schema_json};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A report as this version writes it, with numbers as large as they can be.
fn report() -> Report {
    let Ok(Document::Report(mut report)) = read_document(&golden("result-1.json")) else { panic!("it is a report") };
    report.tool.version = "0.3.0".to_owned();
    report.scenario.seed = integers::MOST;
    report.scenario.hash = report.scenario.digest();
    report.phases.window_started_unix_us = Some(1_795_438_961_129_100);
    let mut recorder = Recorder::new();
    (0..4).for_each(|_| recorder.record(3_000_000_000_000_000));
    report.latency.response = recorder.report();
    report.labels.insert("odd".to_owned(), "gr\u{fc}n \u{1f600} \u{2028} \" \\ \u{1}".to_owned());
    *report
}

fn bundle() -> Bundle {
    let Ok(Document::Bundle(bundle)) = read_document(&golden("bundle-1.json")) else { panic!("it is a bundle") };
    *bundle
}

/// What `program` makes of `text`; `None`, with a word, where it is not here.
fn through(program: &[&str], text: &str) -> Option<Vec<u8>> {
    let mut command = Command::new(program[0]);
    let started = command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = started else {
        eprintln!("skipped: {} is not here", program[0]);
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    let text = text.to_owned();
    let feeder = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(output.status.success(), "{program:?}");
    Some(output.stdout)
}

const TOOLS: &[&[&str]] = &[
    &["jq", "."],
    &["jq", "-S", "-c", "."],
    &["jq", "-a", "."],
    &["python3", "-c", "import json, sys; json.dump(json.load(sys.stdin), sys.stdout)"],
    &[
        "python3",
        "-c",
        "import json, sys; json.dump(json.load(sys.stdin, parse_int=float), sys.stdout, sort_keys=True)",
    ],
    &["node", "-e", "console.log(JSON.stringify(JSON.parse(require('fs').readFileSync(0))))"],
];

#[test]
fn what_other_tools_have_written_again_is_read() {
    for (text, whole) in [
        (report().to_json(), Document::Report(Box::new(report()))),
        (bundle().to_json(), Document::Bundle(Box::new(bundle()))),
    ] {
        for tool in TOOLS {
            let Some(written) = through(tool, &text) else { continue };
            let read = parse_document(&written).unwrap_or_else(|problem| panic!("{tool:?}: {problem}"));
            assert!(read == whole, "{tool:?}");
        }
    }
}

#[test]
fn the_spelling_of_numbers_marks_and_escapes_is_no_content() {
    let text = report().to_json();
    let connections = format!("\"connections\": {},", report().scenario.connections);
    assert!(text.contains(&connections));
    let spelled = |number: &str| text.replacen(&connections, &format!("\"connections\": {number},"), 1);
    for same in ["100.0", "1e2", "1.0E+2", "10000e-2"] {
        assert_eq!(parse_document(spelled(same).as_bytes()).unwrap(), Document::Report(Box::new(report())), "{same}");
    }
    for other in ["100.5", "101", "1e3", "\"100\"", "1e99"] {
        assert!(parse_document(spelled(other).as_bytes()).is_err(), "{other}");
    }
    let marked = format!("\u{feff}{}", text.replace("loadgen.result", "\\u006coadgen.result").replace('\n', "\r\n"));
    assert_eq!(parse_document(marked.as_bytes()).unwrap(), Document::Report(Box::new(report())));
    let wide: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(parse_document(&wide).unwrap_err().to_string().contains("UTF-16"));
}

#[test]
fn no_integer_is_more_than_every_reader_takes_for_the_same() {
    assert_eq!(integers::check(&report().to_json()), Ok(()));
    assert!(report().to_json().contains("\"sum\": \"12000000000000000\""));
    for schema in [schema_json(), bundle_schema_json(), loadgen_core::search::schema::schema_json()] {
        let schema: Value = serde_json::from_str(&schema).unwrap();
        assert!(integers_have_a_maximum(&schema) > 20);
    }
}

/// How many there are.
fn integers_have_a_maximum(schema: &Value) -> usize {
    let nested = match schema {
        Value::Object(fields) => fields.values().map(integers_have_a_maximum).sum(),
        Value::Array(items) => items.iter().map(integers_have_a_maximum).sum(),
        _ => 0,
    };
    let kind = schema.get("type");
    let integer =
        kind.is_some_and(|kind| kind == "integer" || kind.as_array().is_some_and(|of| of.contains(&"integer".into())));
    if integer {
        assert_eq!(schema["maximum"].as_u64(), Some(integers::MOST), "{schema}");
    }
    nested + usize::from(integer)
}

#[test]
fn a_run_of_a_file_is_named_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ab.json");
    std::fs::write(&path, bundle().to_json()).unwrap();
    let numbered = |number: &str| read_run(Path::new(&format!("{}#{number}", path.display())));
    assert_eq!(numbered("1").unwrap(), bundle().runs[0]);
    assert_eq!(numbered("8").unwrap(), bundle().runs[7]);
    for wrong in ["0", "9", "99999999999999999999999"] {
        let told = numbered(wrong).unwrap_err().to_string();
        assert!(told.contains("its runs are #1 to #8"), "{told}");
    }
    assert!(numbered("x").is_err() && numbered("").is_err() && numbered("-1").is_err());
    // A file that is really called so.
    let odd = folder.path().join("ab.json#2");
    std::fs::write(&odd, report().to_json()).unwrap();
    assert_eq!(numbered("2").unwrap(), report());
    let alone = format!("{}#1", odd.display());
    assert!(read_run(Path::new(&alone)).unwrap_err().to_string().contains("is one report"));
}
