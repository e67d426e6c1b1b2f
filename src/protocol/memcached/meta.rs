//! What the server half answers to a meta command (protocol.txt, "Meta Commands").
//!
//! Flags that need what this server does not have (times to live, stale items, keys in base64) are refused, but for
//! `T`, which is read and changes nothing: nothing expires.

use super::stats::{Count, count, count_either};
use super::text::{self, Said, is_key};
use super::{number, words};
use crate::protocol::store::Inner;
use std::io::{self, Write as _};

const BAD_FLAG: &[u8] = b"CLIENT_ERROR invalid flag\r\n";

/// Whether `line` is a meta command.
pub(super) fn is_meta(line: &[u8]) -> bool {
    matches!(line.get(..2), Some(b"mg" | b"ms" | b"md" | b"ma" | b"mn")) && line.get(2).is_none_or(|byte| *byte == b' ')
}

/// The flags of a line: their letters, and what follows those.
#[derive(Clone, Copy)]
struct Flags<'a>(&'a [u8]);

impl<'a> Flags<'a> {
    fn each(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        words(self.0).map(|word| (word[0], &word[1..]))
    }

    fn has(self, letter: u8) -> bool {
        self.each().any(|(flag, _)| flag == letter)
    }

    /// The number behind a flag; none if the flag is missing, an error if it is none.
    fn number(self, letter: u8) -> Result<Option<u64>, &'static [u8]> {
        match self.each().find(|(flag, _)| *flag == letter) {
            None => Ok(None),
            Some((_, digits)) => {
                number(digits).map(Some).ok_or(&b"CLIENT_ERROR bad token in command line format\r\n"[..])
            }
        }
    }
}

/// Carries out `line`; `data` is what followed it where it stores. The reply goes to `out`.
pub(super) fn execute(line: &[u8], data: &[u8], store: &mut Inner, out: &mut Vec<u8>) -> io::Result<Said> {
    let mut fields = words(line);
    let verb = fields.next().unwrap_or_default();
    let key = fields.next().unwrap_or_default();
    if verb == b"mn" {
        out.extend_from_slice(b"MN\r\n");
        return Ok(Said::Reply);
    }
    // Flags follow the key, and with `ms` the number of bytes.
    let skipped = if verb == b"ms" { 3 } else { 2 };
    let flags = Flags(behind(line, skipped));
    let known: &[u8] = match verb {
        b"mg" => b"cfkOqstTv",
        b"ms" => b"cCFkMOqsT",
        b"md" => b"CkOq",
        _ => b"cCDJkMNOqtTv",
    };
    let result = if key.is_empty() {
        Err(&b"ERROR\r\n"[..])
    } else if !is_key(key) {
        Err(text::BAD_LINE)
    } else if flags.each().any(|(flag, _)| !known.contains(&flag)) {
        Err(BAD_FLAG)
    } else {
        match verb {
            b"mg" => get(key, flags, store),
            b"ms" => set(key, flags, data, store),
            b"md" => delete(key, flags, store),
            _ => arithmetic(key, flags, store, out),
        }
    };
    count(store, Count::CmdMeta);
    let word = match result {
        Ok(word) => word,
        Err(error) => {
            out.clear();
            out.extend_from_slice(error);
            return Ok(Said::Reply);
        }
    };
    if flags.has(b'q') && is_hidden(verb, word) {
        return Ok(Said::Nothing);
    }
    write(word, (key, verb == b"ma"), flags, store, out)?;
    Ok(Said::Reply)
}

/// What is left of `line` behind so many words.
fn behind(line: &[u8], words: usize) -> &[u8] {
    let mut rest = line.trim_ascii_start();
    for _ in 0..words {
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        rest = rest[end..].trim_ascii_start();
    }
    rest
}

/// What a quiet command does not say (as memcached 1.6.18 has it: a missing key is always told but by `mg`).
fn is_hidden(verb: &[u8], word: &[u8]) -> bool {
    word == if verb == b"mg" { b"EN" } else { b"HD" }
}

/// The word that answers, or the error.
type Word = Result<&'static [u8], &'static [u8]>;

fn get(key: &[u8], flags: Flags<'_>, store: &mut Inner) -> Word {
    let there = store.get(key).is_some();
    // As memcached 1.6.18 counts: one that touches what is not there is a get that misses.
    if there && flags.has(b'T') {
        count(store, Count::CmdTouch);
        count(store, Count::TouchHits);
    } else {
        count(store, Count::CmdGet);
        count_either(store, there, Count::GetHits, Count::GetMisses);
    }
    Ok(found(there, flags))
}

fn found(there: bool, flags: Flags<'_>) -> &'static [u8] {
    match (there, flags.has(b'v')) {
        (false, _) => b"EN",
        (true, true) => b"VA",
        (true, false) => b"HD",
    }
}

fn set(key: &[u8], flags: Flags<'_>, data: &[u8], store: &mut Inner) -> Word {
    let client_flags = flags.number(b'F')?.unwrap_or(0);
    let client_flags = u32::try_from(client_flags).map_err(|_| text::BAD_LINE)?;
    let compare = flags.number(b'C')?;
    let mode = flags.each().find(|(flag, _)| *flag == b'M').map_or(&b"S"[..], |(_, mode)| mode);
    count(store, Count::CmdSet);
    let version = store.get(key).map(|entry| entry.version);
    if let Some(word) = refused(compare, version, store) {
        return Ok(word);
    }
    let said = match (mode, version) {
        (b"S" | b"s", _) | (b"E" | b"e", None) | (b"R" | b"r", Some(_)) => {
            if store.set(key, data, client_flags).is_err() {
                return Err(text::NO_ROOM);
            }
            count(store, Count::TotalItems);
            return Ok(b"HD");
        }
        (b"A" | b"a", Some(_)) => text::join(key, data, false, store),
        (b"P" | b"p", Some(_)) => text::join(key, data, true, store),
        (b"E" | b"e" | b"R" | b"r" | b"A" | b"a" | b"P" | b"p", _) => return Ok(b"NS"),
        _ => return Err(b"CLIENT_ERROR invalid mode for ms\r\n"),
    };
    if said == text::TOO_LARGE || said == text::NO_ROOM { Err(said) } else { Ok(b"HD") }
}

/// Why a version that is asked for does not allow it, if it does not.
fn refused(compare: Option<u64>, version: Option<u64>, store: &mut Inner) -> Option<&'static [u8]> {
    let wanted = compare?;
    let (what, word): (Count, Option<&[u8]>) = match version {
        None => (Count::CasMisses, Some(b"NF")),
        Some(version) if version != wanted => (Count::CasBadval, Some(b"EX")),
        Some(_) => (Count::CasHits, None),
    };
    count(store, what);
    word
}

fn delete(key: &[u8], flags: Flags<'_>, store: &mut Inner) -> Word {
    let version = store.get(key).map(|entry| entry.version);
    let wanted = flags.number(b'C')?;
    if version.is_some() && wanted.is_some() && version != wanted {
        count(store, Count::DeleteMisses);
        return Ok(b"EX");
    }
    let there = store.remove(key);
    count_either(store, there, Count::DeleteHits, Count::DeleteMisses);
    Ok(if there { b"HD" } else { b"NF" })
}

fn arithmetic(key: &[u8], flags: Flags<'_>, store: &mut Inner, out: &mut Vec<u8>) -> Word {
    let delta = flags.number(b'D')?.unwrap_or(1);
    let initial = flags.number(b'J')?.unwrap_or(0);
    let version = store.get(key).map(|entry| entry.version);
    let wanted = flags.number(b'C')?;
    let up = match flags.each().find(|(flag, _)| *flag == b'M').map_or(&b"I"[..], |(_, mode)| mode) {
        b"I" | b"i" | b"+" => true,
        b"D" | b"d" | b"-" => false,
        _ => return Err(b"CLIENT_ERROR invalid mode for ma\r\n"),
    };
    if version.is_some() && wanted.is_some() && version != wanted {
        return Ok(b"EX");
    }
    if version.is_none() && flags.has(b'N') {
        write!(out, "{initial}").map_err(|_| text::BAD_DELTA)?;
        let stored = store.set(key, out, 0);
        out.clear();
        if stored.is_err() {
            return Err(text::NO_ROOM);
        }
        count(store, Count::TotalItems);
        return Ok(found(true, flags));
    }
    match text::add(key, delta, up, store) {
        Ok(_) => {}
        Err(b"NOT_FOUND\r\n") => return Ok(b"NF"),
        Err(error) => return Err(error),
    }
    Ok(found(true, flags))
}

/// The line that begins with `word`, and the value where it says that one follows. `counts`: it is a number.
fn write(
    word: &[u8],
    (key, counts): (&[u8], bool),
    flags: Flags<'_>,
    store: &Inner,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    out.extend_from_slice(word);
    let entry = store.get(key).filter(|_| word == b"VA" || word == b"HD");
    // A number is told without the blanks that may fill up its place.
    let value = entry.map_or(&b""[..], |entry| if counts { entry.value.trim_ascii_end() } else { &entry.value });
    if word == b"VA" {
        write!(out, " {}", value.len())?;
    }
    for (flag, token) in flags.each() {
        match (flag, entry) {
            (b'O', _) => {
                out.extend_from_slice(b" O");
                out.extend_from_slice(token);
            }
            (b'k', _) => {
                out.extend_from_slice(b" k");
                out.extend_from_slice(key);
            }
            (b'c', Some(entry)) => write!(out, " c{}", entry.version)?,
            (b'f', Some(entry)) => write!(out, " f{}", entry.flags)?,
            (b's', Some(entry)) => write!(out, " s{}", entry.value.len())?,
            (b't', Some(_)) => out.extend_from_slice(b" t-1"), // without an end
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
    if word == b"VA" {
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}
