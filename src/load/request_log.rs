//! Every request with its times, for those who want to check the rest (`--request-log`).

use crate::time::Instant;
use std::io::{self, Write};

/// Memory of a row.
pub const ROW_BYTES: u64 = size_of::<Row>() as u64;

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
    /// Of other workers, whose slot numbers go on behind so many. They stay where they are: there may be no memory for
    /// a copy.
    others: Vec<(u32, Vec<Row>)>,
    /// Requests for which there was no room.
    pub left_out: u64,
}

impl RequestLog {
    /// A log that keeps so many requests, in memory that was taken for them; none is kept with 0.
    pub fn keeping(rows: Vec<Row>, room: usize) -> Self {
        Self { rows, room, others: Vec::new(), left_out: 0 }
    }

    #[inline]
    pub fn is_kept(&self) -> bool {
        self.room > 0
    }

    /// Those that were kept, in the order in which their fate was known.
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
    pub fn append(&mut self, other: Self, slots_before: u32) {
        self.others.push((slots_before, other.rows));
        self.left_out += other.left_out;
    }

    /// Writes them as CSV, in the order in which they were due. Takes no memory to speak of.
    pub fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut parts = std::mem::take(&mut self.others);
        parts.push((0, std::mem::take(&mut self.rows)));
        for (_, rows) in &mut parts {
            rows.sort_unstable_by_key(|row| (row.due, row.slot, row.sent, row.ended));
        }
        let mut parts: Vec<_> = parts.iter().map(|(before, rows)| (*before, &rows[..])).collect();
        writeln!(out, "slot,due_ns,sent_ns,received_ns,outcome")?;
        loop {
            let next = |(before, rows): &(u32, &[Row])| Some((rows.first()?.due, rows.first()?.slot + before));
            let first = parts.iter_mut().filter(|(_, rows)| !rows.is_empty()).min_by_key(|part| next(part));
            let Some((before, rows)) = first else { return Ok(()) };
            let Row { slot, due, sent, ended, outcome } = rows[0];
            writeln!(out, "{},{},{},{},{outcome}", slot + *before, due.0, sent.0, ended.0)?;
            *rows = &rows[1..];
        }
    }
}
