//! Every request with its times, for those who want to check the rest (`--request-log`).

use loadgen_core::time::Instant;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Requests that are kept, of all threads together: 40 bytes each, taken before the run.
pub const ROWS_MAX: u64 = 4_000_000;

/// One request: `CLOCK_MONOTONIC` nanoseconds; 0: never.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub slot: u32,
    pub due: Instant,
    pub sent: Instant,
    /// When its fate was known: the reply was here, or it was given up.
    pub ended: Instant,
    pub outcome: &'static str,
}

/// The log of one worker, or of several.
#[derive(Debug, Default)]
pub struct RequestLog {
    rows: Vec<Row>,
    room: usize,
    /// Requests for which there was no room.
    pub left_out: u64,
}

impl RequestLog {
    /// A log with room for so many requests; none is kept with 0.
    pub fn new(room: usize) -> Self {
        Self { rows: Vec::with_capacity(room), room, left_out: 0 }
    }

    #[inline]
    pub fn is_kept(&self) -> bool {
        self.room > 0
    }

    /// Those that were kept, in the order in which their fate was known.
    #[cfg(test)]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn note(&mut self, row: Row) {
        if self.rows.len() < self.room {
            self.rows.push(row);
        } else {
            self.left_out += 1;
        }
    }

    /// Adds another worker's, whose slot numbers go on behind `slots_before`.
    pub fn append(&mut self, other: &Self, slots_before: u32) {
        self.rows.extend(other.rows.iter().map(|row| Row { slot: row.slot + slots_before, ..*row }));
        self.left_out += other.left_out;
    }

    /// Writes them as CSV, in the order in which they were due.
    pub fn write(&mut self, path: &Path) -> std::io::Result<()> {
        self.rows.sort_by_key(|row| (row.due, row.slot));
        let mut out = BufWriter::new(std::fs::File::create(path)?);
        writeln!(out, "slot,due_ns,sent_ns,received_ns,outcome")?;
        for Row { slot, due, sent, ended, outcome } in &self.rows {
            writeln!(out, "{slot},{},{},{},{outcome}", due.0, sent.0, ended.0)?;
        }
        out.flush()
    }
}
