//! `--request-log`: when each request arrived, was served and was answered. Kept in memory, so that nothing is written
//! while load is on, and written at the end.

use loadgen_core::service_time::Passage;
use loadgen_core::sys::memory;
use loadgen_core::time::Instant;
use std::io::{self, Write};

/// Rows that are kept: 235 MB, or a quarter of the memory that is left here. Later requests are counted only.
const MOST_ROWS: usize = 4 << 20;
/// Rows of one piece of memory: growth by copying would hold requests up.
const PIECE: usize = 1 << 16;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    connection: u32,
    request: u32,
    received: Instant,
    start: Instant,
    done: Instant,
    /// Right before the send of the last byte; 0: never.
    sent: Instant,
    service_ns: u64,
    delay_ns: u64,
}

/// All requests, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct RequestLog {
    pieces: Vec<Vec<Row>>,
    rows: usize,
    most: usize,
    dropped: u64,
}

impl RequestLog {
    /// With as much room as `memory_left` allows for.
    ///
    /// # Errors
    /// If there is no such memory after all: a load that it ran out under would be lost.
    pub(crate) fn within(memory_left: Option<u64>) -> io::Result<Self> {
        let most =
            |left: u64| usize::try_from(left / 4).map_or(MOST_ROWS, |bytes| MOST_ROWS.min(bytes / size_of::<Row>()));
        Self::new(memory_left.map_or(MOST_ROWS, most))
    }

    /// With room for `most` requests. The kernel gives its memory as they come, but has promised it by then.
    fn new(most: usize) -> io::Result<Self> {
        let pieces = (0..most.div_ceil(PIECE)).map(|_| memory::room(PIECE)).collect::<Option<Vec<_>>>();
        let refused = || {
            let mib = (most * size_of::<Row>()).div_ceil(1 << 20);
            io::Error::new(io::ErrorKind::OutOfMemory, format!("no memory for --request-log, which keeps {mib} MiB"))
        };
        Ok(Self { pieces: pieces.ok_or_else(refused)?, rows: 0, most, dropped: 0 })
    }

    /// Adds a request and names its row; `None`: there is no room.
    pub(crate) fn add(&mut self, connection: u32, request: u32, now: Instant, passage: &Passage) -> Option<u32> {
        if self.rows == self.most {
            self.dropped += 1;
            return None;
        }
        let Passage { start, done, service_ns, delay_ns, .. } = *passage;
        let row = Row { connection, request, received: now, start, done, sent: Instant(0), service_ns, delay_ns };
        self.pieces[self.rows / PIECE].push(row);
        self.rows += 1;
        Some((self.rows - 1) as u32)
    }

    /// Its reply's last byte is about to be sent.
    pub(crate) fn sent(&mut self, row: u32, at: Instant) {
        let row = row as usize;
        self.pieces[row / PIECE][row % PIECE].sent = at;
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows as u64
    }

    /// Requests that found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// A line with the names of the columns, then one a request. Without a reply, `tx_ns` is empty.
    pub(crate) fn write_csv(&self, mut to: impl Write) -> io::Result<()> {
        writeln!(to, "connection,request,rx_ns,start_ns,done_ns,tx_ns,service_ns,delay_ns")?;
        for row in self.pieces.iter().flatten() {
            let Row { connection, request, service_ns, delay_ns, .. } = row;
            let (received, start, done) = (row.received.0, row.start.0, row.done.0);
            write!(to, "{connection},{request},{received},{start},{done},")?;
            if row.sent > Instant(0) {
                write!(to, "{}", row.sent.0)?;
            }
            writeln!(to, ",{service_ns},{delay_ns}")?;
        }
        to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_up_to_the_bound_and_written_in_order() {
        let most = PIECE + 2;
        let mut log = RequestLog::new(most).unwrap();
        let passage = |n: usize| {
            let start = Instant(n as u64 + 1);
            Passage { start, done: start.after(5), service_ns: 3, delay_ns: 2, stalled: false }
        };
        for n in 0..most {
            assert_eq!(log.add(7, n as u32, Instant(n as u64), &passage(n)), Some(n as u32));
        }
        assert_eq!(log.add(7, 0, Instant(0), &passage(0)), None);
        assert_eq!((log.rows(), log.dropped()), (most as u64, 1));
        log.sent(most as u32 - 1, Instant(99_999));
        let mut text = Vec::new();
        log.write_csv(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[1]), (most + 1, "7,0,0,1,6,,3,2"));
        assert_eq!(lines[most], format!("7,{},{},{},{},99999,3,2", most - 1, most - 1, most, most + 5));
        assert_eq!(lines[0].split(',').count(), 8);
    }
}
