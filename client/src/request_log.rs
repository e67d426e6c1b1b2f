//! Memory for the log of every request (`--request-log`).

use loadgen_core::load::request_log::{ROW_BYTES, RequestLog};
use loadgen_core::sys::memory;
use std::io;

/// Requests that are kept, of all threads together: 56 bytes each, taken before the run.
pub const ROWS_MAX: u64 = 4_000_000;

/// A log with room for so many requests; none is kept with 0.
///
/// # Errors
/// If there is no memory for them.
pub fn with_room(room: usize) -> io::Result<RequestLog> {
    let rows = memory::room(room).ok_or_else(|| {
        let mib = (room as u64 * ROW_BYTES).div_ceil(1 << 20);
        io::Error::new(io::ErrorKind::OutOfMemory, format!("no memory for --request-log, which keeps {mib} MiB"))
    })?;
    Ok(RequestLog::keeping(rows, room))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen_core::load::request_log::Row;
    use loadgen_core::time::Instant;

    #[test]
    fn the_logs_of_all_workers_are_written_as_one() {
        let row =
            |slot, due| Row { slot, due: Instant(due), sent: Instant(due), ended: Instant(due + 1), outcome: "ok" };
        let of = |rows: &[Row]| {
            let mut log = with_room(2).unwrap();
            rows.iter().for_each(|one| log.note(*one));
            log
        };
        let mut all = RequestLog::default();
        all.append(of(&[row(0, 30), row(1, 10), row(0, 40)]), 0);
        all.append(of(&[row(0, 10), row(0, 20)]), 2);
        let mut text = Vec::new();
        all.write(&mut text).unwrap();
        let lines = ["slot,due_ns,sent_ns,received_ns,outcome", "1,10,10,11,ok", "2,10,10,11,ok", "2,20,20,21,ok"];
        assert_eq!(String::from_utf8(text).unwrap(), format!("{}\n0,30,30,31,ok\n", lines.join("\n")));
        assert_eq!(all.left_out, 1);
        assert!(with_room(usize::MAX / 128).is_err());
    }
}
