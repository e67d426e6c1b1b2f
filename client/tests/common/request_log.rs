//! What `--request-log` wrote.

use std::path::Path;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) slot: u64,
    pub(crate) due: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) outcome: String,
}

/// All requests, in the order of the file.
pub(crate) fn read(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("slot,due_ns,sent_ns,received_ns,outcome"));
    let row = |line: &str| {
        let words: Vec<&str> = line.split(',').collect();
        let number = |index: usize| words[index].parse().unwrap();
        let outcome = words[4].to_owned();
        Row { slot: number(0), due: number(1), sent: number(2), received: number(3), outcome }
    };
    lines.map(row).collect()
}
