//! What the server half counts, under the names that `stats` of memcached has.

use crate::protocol::store::{COUNTS, Inner};
use std::io::Write as _;

/// An index into [`Inner::counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    CmdGet,
    CmdSet,
    CmdFlush,
    CmdTouch,
    CmdMeta,
    GetHits,
    GetMisses,
    DeleteMisses,
    DeleteHits,
    IncrMisses,
    IncrHits,
    DecrMisses,
    DecrHits,
    CasMisses,
    CasHits,
    CasBadval,
    TouchHits,
    TouchMisses,
    TotalItems,
}

/// All of them, in the order in which they are said.
const NAMES: &[(&str, Count)] = &[
    ("cmd_get", Count::CmdGet),
    ("cmd_set", Count::CmdSet),
    ("cmd_flush", Count::CmdFlush),
    ("cmd_touch", Count::CmdTouch),
    ("cmd_meta", Count::CmdMeta),
    ("get_hits", Count::GetHits),
    ("get_misses", Count::GetMisses),
    ("delete_misses", Count::DeleteMisses),
    ("delete_hits", Count::DeleteHits),
    ("incr_misses", Count::IncrMisses),
    ("incr_hits", Count::IncrHits),
    ("decr_misses", Count::DecrMisses),
    ("decr_hits", Count::DecrHits),
    ("cas_misses", Count::CasMisses),
    ("cas_hits", Count::CasHits),
    ("cas_badval", Count::CasBadval),
    ("touch_hits", Count::TouchHits),
    ("touch_misses", Count::TouchMisses),
    ("total_items", Count::TotalItems),
];

const _: () = assert!(NAMES.len() <= COUNTS && Count::TotalItems as usize + 1 == NAMES.len());

pub(super) fn count(store: &mut Inner, what: Count) {
    store.counts[what as usize] += 1;
}

/// One of two, by whether it was found.
pub(super) fn count_either(store: &mut Inner, found: bool, hit: Count, miss: Count) {
    count(store, if found { hit } else { miss });
}

/// The reply to `stats`.
pub(super) fn write(store: &Inner, out: &mut Vec<u8>) -> std::io::Result<()> {
    write!(out, "STAT version {}\r\nSTAT pointer_size {}\r\n", super::text::VERSION, usize::BITS)?;
    for (name, count) in NAMES {
        write!(out, "STAT {name} {}\r\n", store.counts[*count as usize])?;
    }
    write!(out, "STAT bytes {}\r\nSTAT curr_items {}\r\n", store.bytes(), store.len())?;
    write!(out, "STAT limit_maxbytes {}\r\nEND\r\n", store.bytes_max())
}

/// Starts from nothing again, as `stats reset`.
pub(super) fn reset(store: &mut Inner) {
    store.counts = [0; COUNTS];
}
