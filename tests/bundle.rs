//! The bundle file: its schema, the golden file, what must hold within one, and what else may lie at a path.

use loadgen_core::histogram::Recorder;
use loadgen_core::result::read::{Document, MOST_BYTES};
use loadgen_core::result::*;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const GOLDEN: &str = "tests/golden/bundle-1.json";
const SCHEMA_FILE: &str = "schema/loadgen.bundle-1.json";

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn blessing() -> bool {
    std::env::var_os("LOADGEN_BLESS").is_some()
}

/// A small run at its place in the bundle.
fn run(block: u64, slot: u64, arm: &str) -> Report {
    let mut run = read::read(&in_repository("tests/golden/result-1.json")).unwrap();
    let mut recorder = Recorder::new();
    (0..100).for_each(|i| recorder.record(900 + 10 * block + slot + i % 7));
    run.tool.version = "0.2.0".to_owned();
    run.environment = Environment::default();
    run.latency = Latency { response: recorder.report(), ..Latency::default() };
    run.series.rows.truncate(1);
    (run.server, run.shard, run.floor, run.generator, run.confidence) = (None, None, None, None, None);
    run.ab = Some(AbSlot { session: "20261123T210000Z".to_owned(), block, slot, arm: arm.to_owned() });
    run
}

fn arm(name: &str) -> Arm {
    let target = (name == "B").then(|| "127.0.0.1:8080".to_owned());
    Arm { name: name.to_owned(), server_command: None, target, flags: vec!["--conns".to_owned(), "10".to_owned()] }
}

fn order() -> Vec<Vec<String>> {
    [["A", "B", "B", "A"], ["B", "A", "A", "B"]].map(|block| block.map(str::to_owned).to_vec()).to_vec()
}

fn sample() -> Bundle {
    let slots = (0..).zip(order()).flat_map(|(block, arms)| (0..).zip(arms).map(move |(slot, arm)| (block, slot, arm)));
    Bundle {
        schema: BUNDLE_SCHEMA.to_owned(),
        tool: Tool { name: "loadgen".to_owned(), version: "0.2.0".to_owned() },
        command: ["loadgen", "ab", "--detect", "2%"].map(str::to_owned).to_vec(),
        started_at: "2026-11-23T21:00:00.125Z".to_owned(),
        partial: false,
        session: "20261123T210000Z".to_owned(),
        seed: 7,
        arms: vec![arm("A"), arm("B")],
        blocks_planned: 2,
        plan: Some(BlockPlan {
            detect_ppm: 20_000,
            pilot_blocks: 3,
            spread_ppm: [("p99".to_owned(), 31_000)].into(),
            blocks: 2,
        }),
        order: order(),
        runs: slots.map(|(block, slot, arm)| run(block, slot, &arm)).collect(),
        checksum: None,
    }
}

fn parse(bundle: &Bundle) -> Result<Bundle, String> {
    match read::parse_document(bundle.to_json().as_bytes()) {
        Ok(Document::Bundle(bundle)) => Ok(*bundle),
        Ok(Document::Report(_)) => panic!("a bundle is not a report"),
        Err(problem) => Err(problem.to_string()),
    }
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    let path = in_repository(SCHEMA_FILE);
    if blessing() {
        fs::write(&path, bundle_schema_json()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let remedy = "LOADGEN_BLESS=1 cargo test --test bundle";
    assert!(committed == bundle_schema_json(), "{SCHEMA_FILE} is out of date; run: {remedy}");
}

#[test]
fn bundles_validate_against_the_schema() {
    let schema = serde_json::from_str(&fs::read_to_string(in_repository(SCHEMA_FILE)).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for text in [sample().to_json(), fs::read_to_string(in_repository(GOLDEN)).unwrap()] {
        let bundle: serde_json::Value = serde_json::from_str(&text).unwrap();
        let problems: Vec<String> = validator.iter_errors(&bundle).map(|problem| problem.to_string()).collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

/// A golden file is never edited: it stands for all files that users have kept.
#[test]
fn the_golden_bundle_loads() {
    let path = in_repository(GOLDEN);
    if blessing() && !path.exists() {
        _ = write::write_bundle_atomically(&path, &sample()).unwrap();
    }
    let Ok(Document::Bundle(bundle)) = read::read_document(&path) else { panic!("it is a bundle") };
    assert_eq!((bundle.runs.len(), bundle.session.as_str()), (8, "20261123T210000Z"));
    let problem = read::read(&path).unwrap_err().to_string();
    assert!(problem.contains("is a bundle of 8 runs") && problem.contains("name one: FILE#1"), "{problem}");
}

#[test]
fn a_written_bundle_reads_back_the_same_and_so_does_each_run_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ab.json");
    assert!(write::write_bundle_atomically(&path, &sample()).unwrap().warning().is_none());
    let second = write::write_new_bundle(&path, &sample()).unwrap().path;
    for path in [&path, &second] {
        assert_eq!(read::read_document(path).unwrap(), Document::Bundle(Box::new(sample())));
    }
    let value: serde_json::Value = serde_json::from_str(&sample().to_json()).unwrap();
    for (run, whole) in value["runs"].as_array().unwrap().iter().zip(sample().runs) {
        assert_eq!(read::parse(run.to_string().as_bytes()).unwrap(), whole);
    }
    let default = write::default_path("2026-11-23T13:02:40.125Z", "ab");
    assert_eq!(default, Path::new("results/20261123T130240.125Z-ab.json"));
}

/// Whether a change of a bundle is complained about in these words.
fn refused(expected: &str, change: impl Fn(&mut Bundle)) {
    let mut bundle = sample();
    change(&mut bundle);
    let problem = parse(&bundle).expect_err(expected);
    assert!(problem.contains(expected) && !problem.contains('\n'), "{problem}, not {expected}");
}

#[test]
fn arms_order_and_runs_belong_together() {
    refused("runs[3].ab: it does not say its place (block 0 slot 3 arm \"A\"", |bundle| bundle.runs[3].ab = None);
    refused("runs[1].ab is block 0 slot 2 arm \"B\"", |bundle| drop(bundle.runs.remove(1)));
    refused("runs[4].ab is block 0 slot 0", |bundle| bundle.runs[4] = bundle.runs[0].clone());
    refused("runs[0].ab is block 0 slot 0 arm \"A\" of session \"other\"", |bundle| {
        bundle.runs[0].ab.as_mut().unwrap().session = "other".to_owned();
    });
    refused("runs: 1 of 2 blocks are there, and the bundle is not marked partial", |bundle| bundle.runs.truncate(4));
    refused("runs: block 1 has 3 of its 4 runs", |bundle| drop(bundle.runs.pop()));
    refused("runs[4]: the order ends before it", |bundle| drop(bundle.order.pop()));
    refused("order[1] names {\"A\", \"B\", \"C\"}", |bundle| bundle.order[1][0] = "C".to_owned());
    refused("order[0] names {}", |bundle| bundle.order[0].clear());
    refused("runs: 2 of 3 blocks are there, and the bundle is not marked partial", |bundle| bundle.blocks_planned = 3);
    refused("two have the same name", |bundle| bundle.arms.push(arm("A")));
    refused("there must be A (base) and B (candidate)", |bundle| drop(bundle.arms.remove(0)));
    refused("runs[2]: ledger: the ledger does not close", |bundle| bundle.runs[2].ledger.unsent += 1);
    refused("runs[2].schema", |bundle| bundle.runs[2].schema = "loadgen.result/2".to_owned());
}

#[test]
fn a_partial_bundle_has_fewer_blocks() {
    for keep_order in [true, false] {
        let mut bundle = sample();
        bundle.partial = true;
        bundle.runs.truncate(4);
        bundle.order.truncate(if keep_order { 2 } else { 1 });
        assert_eq!(parse(&bundle), Ok(bundle));
    }
}

#[test]
fn what_was_changed_afterwards_is_refused() {
    let (text, run) = (sample().to_json(), run(0, 0, "A").to_json());
    let change = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        read::parse_document(text.replacen(from, to, 1).as_bytes()).map_err(|problem| problem.to_string())
    };
    for text in [&text, &run] {
        let problem = change(text, "\"seed\": ", "\"seed\": 1").unwrap_err();
        assert!(problem.contains("its content gives") && problem.contains("after loadgen wrote it"), "{problem}");
        let problem = change(text, "\"checksum\"", "\"checksun\"").unwrap_err();
        assert!(problem.contains("it has no checksum"), "{problem}");
        assert!(change(text, "\"schema\": ", "\"invented\": 1, \"schema\": ").is_err(), "unknown fields count, too");
        // Layout does not.
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert!(read::parse_document(value.to_string().as_bytes()).is_ok());
    }
    // A report of version 0.1 has none.
    let old = change(&run, "\"version\": \"0.2.0\"", "\"version\": \"0.1.0\"").unwrap_err();
    assert!(old.contains("its content gives"), "{old}");
}

#[test]
fn what_is_no_file_or_has_no_end_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let huge = folder.path().join("huge.json");
    File::create(&huge).unwrap().set_len(MOST_BYTES + 1).unwrap();
    let problem = |path: &Path| read::read_document(path).unwrap_err().to_string();
    assert!(problem(&huge).contains("more than 256 MiB"));
    assert!(problem(folder.path()).contains("it is a folder, not a file"));
    assert!(problem(Path::new("/dev/zero")).contains("it is a device, not a file"));
    let odd = folder.path().join("two\nlines.json");
    fs::write(&odd, " \n").unwrap();
    assert!(problem(&odd).ends_with("two\\nlines.json: is empty"), "{}", problem(&odd));
    fs::write(&odd, format!("{{\"schema\": \"{}\"}}", "x\\n".repeat(10_000))).unwrap();
    assert!(problem(&odd).len() < 2_000 && !problem(&odd).contains('\n'));
}
