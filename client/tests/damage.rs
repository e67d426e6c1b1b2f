//! Damaged files through the real program: exit 2, one line that names the file, and nothing that looks like a result.

#[path = "../../tests/damage/corrupt.rs"]
mod corrupt;

mod common;

use corrupt::corrupted;
use loadgen_core::result::Report;
use loadgen_core::result::read::{Document, parse_document, read_document};
use loadgen_core::rng::Rng;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Every command that reads reports or bundles. `DAMAGED` stands for a damaged file, `GOOD` for a whole report.
const COMMANDS: &[&[&str]] = &[
    &["report", "DAMAGED"],
    &["report", "DAMAGED", "--format", "json"],
    &["compare", "GOOD", "DAMAGED"],
    &["compare", "DAMAGED", "GOOD"],
    &["compare", "DAMAGED"],
];
/// Files of each kind and command.
const EACH: usize = 50;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// A report as this version writes it.
fn report() -> Report {
    let Ok(Document::Report(mut report)) = read_document(&golden("result-1.json")) else { panic!("it is a report") };
    report.tool.version = "0.2.0".to_owned();
    *report
}

fn bundle() -> String {
    let Ok(Document::Bundle(bundle)) = read_document(&golden("bundle-1.json")) else { panic!("it is a bundle") };
    bundle.to_json()
}

/// That `command` refuses this file as it should.
fn refuses(command: &[&str], good: &Path, damaged: &Path) {
    let arguments = command.iter().map(|word| match *word {
        "DAMAGED" => damaged.as_os_str(),
        "GOOD" => good.as_os_str(),
        word => word.as_ref(),
    });
    let output = common::command(env!("CARGO_BIN_EXE_loadgen")).args(arguments).stdin(Stdio::null()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{command:?}: {stderr}{stdout}");
    assert!(stdout.is_empty(), "{command:?}: {stdout}");
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{command:?}: {stderr}");
    assert!(stderr.contains(damaged.to_str().unwrap()), "{command:?}: {stderr}");
}

#[test]
fn damaged_files_are_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (good, damaged) = (folder.path().join("good.json"), folder.path().join("damaged.json"));
    fs::write(&good, report().to_json()).unwrap();
    let mut rng = Rng::new(11);
    for text in [report().to_json(), bundle()] {
        for command in COMMANDS {
            let mut tried = 0;
            while tried < EACH {
                let bytes = corrupted(text.as_bytes(), &mut rng);
                // Where only the layout differs, it is no damage.
                if parse_document(&bytes).is_err() {
                    fs::write(&damaged, bytes).unwrap();
                    refuses(command, &good, &damaged);
                    tried += 1;
                }
            }
        }
    }
}

#[test]
fn what_is_no_file_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.json");
    fs::write(&good, report().to_json()).unwrap();
    let [empty, huge] = ["empty.json", "huge.json"].map(|name| folder.path().join(name));
    fs::write(&empty, "").unwrap();
    fs::File::create(&huge).unwrap().set_len(10 << 30).unwrap();
    let odd = [empty, huge, "/dev/zero".into(), "/dev/null".into(), folder.path().join("none.json")];
    for command in COMMANDS.iter().filter(|command| command.contains(&"DAMAGED")) {
        odd.iter().for_each(|file| refuses(command, &good, file));
    }
}

/// Layout is no damage, and neither is the order of keys: what jq writes stays readable, also a run out of a bundle.
#[test]
fn what_jq_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    let bundle: serde_json::Value = serde_json::from_str(&bundle()).unwrap();
    fs::write(&file, bundle["runs"][1].to_string()).unwrap();
    let output = common::command(env!("CARGO_BIN_EXE_loadgen")).arg("report").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("20,000"));
}

/// A whole bundle is no damage, but no report either.
#[test]
fn a_bundle_is_no_report() {
    let output =
        common::command(env!("CARGO_BIN_EXE_loadgen")).arg("report").arg(golden("bundle-1.json")).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{stderr}");
    assert!(stderr.contains("is a bundle of 8 runs") && stderr.contains("loadgen compare"), "{stderr}");
}
