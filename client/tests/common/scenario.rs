//! What the tests of scenario files share.

use super::{loadgen_plain, scratch};
use loadgen_core::result::Report;
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

pub(crate) const MIX: &str = r#"
name = "mix"
[defaults]
threads = 3
conns = 6
header = "X-All: yes"
[keys]
count = 50
[[request]]
name = "item"
weight = 8
path = "/item/{counter}?k={key}"
[[request]]
name = "head"
weight = 3
method = "HEAD"
path = "/head/{counter}"
[[request]]
name = "post"
weight = 1
method = "POST"
path = "/post/{counter}"
body = '{"id": "{hex:7}", "n": {random:0..100000}, "v": "{pick:a|bb|ccc}"}'
headers = ["Content-Type: application/json", "X-Id: {uuid}"]
"#;

pub(crate) fn with_file(name: &str, text: &str) -> TempDir {
    let folder = scratch();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

pub(crate) fn in_folder(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// Requests of each kind that were answered, over the whole run.
pub(crate) fn kinds(report: &Report) -> BTreeMap<String, u64> {
    let groups = report.breakdown.iter();
    groups.map(|group| (group.kind.clone().expect("a kind"), group.whole_run.ok)).collect()
}

/// The example of the documentation, against a server of our own.
pub(crate) fn example() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop.toml").display().to_string()
}

/// A dump, kept in a folder of its own.
pub(crate) fn dumped(args: &[&str]) -> (String, TempDir) {
    let ended = loadgen_plain(&[args, &["--dump-scenario"]].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{}", ended.stdout);
    let folder = with_file("dump.toml", &ended.stdout);
    (ended.stdout, folder)
}
