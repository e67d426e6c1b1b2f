//! What the server half answers to a text command.

use super::stats::{self, Count, count, count_either};
use super::{KEY_MAX, VALUE_MAX, number, words};
use crate::protocol::store::Inner;
use std::io::{self, Write as _};

/// What clients read out of it is the version of the protocol.
pub(super) const VERSION: &str = "1.6.0-loadgen";

pub(super) const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
pub(super) const BAD_BLOCK: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
pub(super) const BAD_TIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";
pub(super) const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
pub(super) const NO_ROOM: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";
pub(super) const NOT_A_NUMBER: &[u8] = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
pub(super) const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta argument\r\n";

/// A reply is written, or none is wanted (`noreply`, or a quiet meta command).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Reply,
    Nothing,
}

pub(super) fn is_key(key: &[u8]) -> bool {
    !key.is_empty() && key.len() <= KEY_MAX && key.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// Whether nothing is to be answered: the last word says so.
pub(super) fn is_silent(line: &[u8]) -> bool {
    words(line).skip(1).last() == Some(b"noreply")
}

/// Carries out `line`; `data` is what followed it where it stores. What reads values is not of these.
pub(super) fn execute(line: &[u8], data: &[u8], store: &mut Inner, out: &mut Vec<u8>) -> io::Result<Said> {
    let silent = is_silent(line);
    let mut fields = [&b""[..]; 8];
    let mut have = 0;
    for word in words(line) {
        if have == fields.len() {
            break; // more words than any command has
        }
        fields[have] = word;
        have += 1;
    }
    let given = &fields[1..have.saturating_sub(usize::from(silent)).max(1)];
    let reply: &[u8] = match (fields[0], given) {
        (b"set" | b"add" | b"replace" | b"append" | b"prepend", [key, flags, exptime, _]) => {
            keep(fields[0], (key, flags, exptime), None, data, store)
        }
        (b"cas", [key, flags, exptime, _, unique]) => match number(unique) {
            Some(unique) => keep(b"cas", (key, flags, exptime), Some(unique), data, store),
            None => BAD_LINE,
        },
        (b"delete", [key] | [key, b"0"]) if is_key(key) => {
            let there = store.remove(key);
            count_either(store, there, Count::DeleteHits, Count::DeleteMisses);
            if there { b"DELETED\r\n" } else { b"NOT_FOUND\r\n" }
        }
        (b"delete", [_, ..]) => b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
        (b"incr" | b"decr", [key, delta]) if is_key(key) => match number(delta) {
            Some(delta) => match add(key, delta, fields[0] == b"incr", store) {
                Ok(value) => {
                    write!(out, "{value}\r\n")?;
                    b""
                }
                Err(error) => error,
            },
            None => BAD_DELTA,
        },
        (b"touch", [key, exptime]) if is_key(key) => match seconds(exptime) {
            Some(exptime) => {
                let there = touch(key, exptime, store);
                if there { b"TOUCHED\r\n" } else { b"NOT_FOUND\r\n" }
            }
            None => BAD_TIME,
        },
        (b"incr" | b"decr" | b"touch", [_, _]) => BAD_LINE,
        _ => match administer(fields[0], given, store, out)? {
            Some(reply) => reply,
            None => {
                out.extend_from_slice(b"ERROR\r\n"); // said even where no reply is wanted
                return Ok(Said::Reply);
            }
        },
    };
    out.extend_from_slice(reply);
    Ok(if silent { Said::Nothing } else { Said::Reply })
}

/// What is not about one key: what is to follow in `out`, or `None` where there is no such command.
fn administer(verb: &[u8], given: &[&[u8]], store: &mut Inner, out: &mut Vec<u8>) -> io::Result<Option<&'static [u8]>> {
    let reply: &[u8] = match (verb, given) {
        (b"flush_all", [] | [b"0"]) => {
            store.clear();
            count(store, Count::CmdFlush);
            b"OK\r\n"
        }
        // It would have to look at a clock.
        (b"flush_all", [_]) => b"CLIENT_ERROR this server flushes at once only\r\n",
        (b"verbosity", [_]) => b"OK\r\n",
        (b"version", _) => {
            write!(out, "VERSION {VERSION}\r\n")?;
            b""
        }
        (b"stats", []) => {
            stats::write(store, out)?;
            b""
        }
        (b"stats", [b"reset"]) => {
            stats::reset(store);
            b"RESET\r\n"
        }
        // Of slabs, settings and the like there is nothing to tell.
        (b"stats", [_]) => b"END\r\n",
        _ => return Ok(None),
    };
    Ok(Some(reply))
}

/// Stores what has key, flags and time to live, by the rule of its command.
fn keep(
    verb: &[u8],
    (key, flags, exptime): (&[u8], &[u8], &[u8]),
    unique: Option<u64>,
    data: &[u8],
    store: &mut Inner,
) -> &'static [u8] {
    let (Some(flags), Some(exptime)) = (number::<u32>(flags), seconds(exptime)) else { return BAD_LINE };
    if !is_key(key) {
        return BAD_LINE;
    }
    count(store, Count::CmdSet);
    let before = store.get(key).map(|entry| entry.version);
    if let Some(unique) = unique {
        return match before {
            None => {
                count(store, Count::CasMisses);
                b"NOT_FOUND\r\n"
            }
            Some(version) if version != unique => {
                count(store, Count::CasBadval);
                b"EXISTS\r\n"
            }
            Some(_) => {
                count(store, Count::CasHits);
                put(key, data, flags, exptime < 0, store)
            }
        };
    }
    match (verb, before) {
        (b"add", Some(_)) | (b"replace" | b"append" | b"prepend", None) => b"NOT_STORED\r\n",
        (b"append", _) => join(key, data, false, store),
        (b"prepend", _) => join(key, data, true, store),
        _ => put(key, data, flags, exptime < 0, store),
    }
}

fn put(key: &[u8], data: &[u8], flags: u32, expired: bool, store: &mut Inner) -> &'static [u8] {
    if store.set(key, data, flags).is_err() {
        return NO_ROOM;
    }
    count(store, Count::TotalItems);
    if expired {
        store.remove(key);
    }
    b"STORED\r\n"
}

/// Puts `data` before or behind a value that is there.
pub(super) fn join(key: &[u8], data: &[u8], before: bool, store: &mut Inner) -> &'static [u8] {
    let Some(entry) = store.get(key) else { return b"NOT_STORED\r\n" };
    if entry.value.len() + data.len() > VALUE_MAX {
        return TOO_LARGE;
    }
    let flags = entry.flags;
    let value = if before { [data, &entry.value].concat() } else { [&entry.value, data].concat() };
    put(key, &value, flags, false, store)
}

/// Counts a value up or down, as memcached does: up beyond 64 bits begins at 0 again, down ends at 0.
///
/// # Errors
/// The reply that says why not.
pub(super) fn add(key: &[u8], delta: u64, up: bool, store: &mut Inner) -> Result<u64, &'static [u8]> {
    let (hit, miss) = if up { (Count::IncrHits, Count::IncrMisses) } else { (Count::DecrHits, Count::DecrMisses) };
    let Some(entry) = store.get(key) else {
        count(store, miss);
        return Err(b"NOT_FOUND\r\n");
    };
    let Some(value) = number::<u64>(entry.value.trim_ascii_end()) else { return Err(NOT_A_NUMBER) };
    let value = if up { value.wrapping_add(delta) } else { value.saturating_sub(delta) };
    // A shorter number is filled up with blanks: memcached writes it in place (protocol.txt, "decr").
    let mut text = [b' '; 20];
    let mut room = &mut text[..];
    write!(room, "{value}").map_err(|_| NOT_A_NUMBER)?;
    let written = 20 - room.len();
    let (len, flags) = (written.max(entry.value.len().min(20)), entry.flags);
    if store.set(key, &text[..len], flags).is_err() {
        return Err(NO_ROOM);
    }
    count(store, hit);
    Ok(value)
}

/// Whether it was there. Nothing expires but what has a time to live below 0.
pub(super) fn touch(key: &[u8], exptime: i64, store: &mut Inner) -> bool {
    let there = store.get(key).is_some();
    if exptime < 0 {
        store.remove(key);
    }
    count(store, Count::CmdTouch);
    count_either(store, there, Count::TouchHits, Count::TouchMisses);
    there
}

/// A time to live, or an instant; the sign is what matters here.
pub(super) fn seconds(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Writes one of the values that `get` and its kin ask for, where it is there.
pub(super) fn value(key: &[u8], with_unique: bool, store: &Inner, out: &mut Vec<u8>) -> io::Result<()> {
    let Some(entry) = store.get(key) else { return Ok(()) };
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    write!(out, " {} {}", entry.flags, entry.value.len())?;
    if with_unique {
        write!(out, " {}", entry.version)?;
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&entry.value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Counts what [`value`] answered. Where a time to live is given, it is a touch, as in memcached.
pub(super) fn counted(key: &[u8], exptime: Option<i64>, store: &mut Inner) {
    match exptime {
        Some(exptime) => _ = touch(key, exptime, store),
        None => {
            let there = store.get(key).is_some();
            count(store, Count::CmdGet);
            count_either(store, there, Count::GetHits, Count::GetMisses);
        }
    }
}
