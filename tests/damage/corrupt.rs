//! Ways in which a file is damaged: by disks, by transfers, by editors and by people.

use loadgen_core::rng::Rng;
use std::ops::Range;

/// `text` with one kind of damage at one or more places, all by chance. It can happen that nothing changes.
pub(crate) fn corrupted(text: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..=rng.below(3) / 2 {
        let kind = KINDS[rng.below(KINDS.len() as u64) as usize];
        kind(&mut bytes, rng);
    }
    bytes
}

type Kind = fn(&mut Vec<u8>, &mut Rng);

const KINDS: &[Kind] = &[
    |bytes, rng| {
        let at = place(bytes, rng);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << rng.below(8);
        }
    },
    |bytes, rng| {
        let at = place(bytes, rng);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = rng.below(256) as u8;
        }
    },
    |bytes, rng| drop(bytes.drain(range(bytes, rng))),
    |bytes, rng| range(bytes, rng).for_each(|at| bytes[at] = 0), // a block that never reached the disk
    |bytes, rng| {
        let noise: Vec<u8> = (0..rng.below(20)).map(|_| rng.below(256) as u8).collect();
        splice(bytes, rng, &noise);
    },
    |bytes, rng| {
        let copy = bytes[range(bytes, rng)].to_vec();
        splice(bytes, rng, &copy);
    },
    |bytes, rng| {
        let (from, to) = (place(bytes, rng), place(bytes, rng));
        if from.max(to) < bytes.len() {
            bytes.swap(from, to);
        }
    },
    // One digit for another: still good JSON, nearly always.
    |bytes, rng| {
        if let Some(at) = one_of(bytes, rng, |byte| byte.is_ascii_digit()) {
            bytes[at] = b'0' + rng.below(10) as u8;
        }
    },
    |bytes, rng| {
        if let Some(at) = one_of(bytes, rng, |byte| byte.is_ascii_alphabetic()) {
            bytes[at] = b'a' + rng.below(26) as u8;
        }
    },
    |bytes, rng| drop(bytes.drain(line(bytes, rng))),
    |bytes, rng| {
        let copy = bytes[line(bytes, rng)].to_vec();
        let at = line(bytes, rng).start;
        bytes.splice(at..at, copy);
    },
    // A key renamed, or a text changed.
    |bytes, rng| {
        if let Some(at) = one_of(bytes, rng, |byte| byte == b'"') {
            bytes.splice(at..=at, *b"\"x");
        }
    },
    |bytes, rng| put_value(bytes, rng, b"null"),
    |bytes, rng| {
        let odd: [&[u8]; 9] =
            [b"-1", b"1.5", b"18446744073709551615", b"18446744073709551616", b"1e999", b"\"\"", b"[]", b"{}", b"true"];
        let value = odd[rng.below(odd.len() as u64) as usize];
        put_value(bytes, rng, value);
    },
    |bytes, rng| bytes.truncate(place(bytes, rng)),
];

fn place(bytes: &[u8], rng: &mut Rng) -> usize {
    rng.below(bytes.len().max(1) as u64) as usize
}

fn range(bytes: &[u8], rng: &mut Rng) -> Range<usize> {
    let start = place(bytes, rng);
    let longest = if rng.below(4) == 0 { 2_000 } else { 20 };
    start..(start + rng.below(longest) as usize).min(bytes.len())
}

fn splice(bytes: &mut Vec<u8>, rng: &mut Rng, insert: &[u8]) {
    let at = place(bytes, rng);
    bytes.splice(at..at, insert.iter().copied());
}

/// The first such byte from a place on.
fn one_of(bytes: &[u8], rng: &mut Rng, wanted: fn(u8) -> bool) -> Option<usize> {
    let from = place(bytes, rng);
    bytes[from..].iter().position(|byte| wanted(*byte)).map(|at| from + at)
}

/// The line around a place, with its end.
fn line(bytes: &[u8], rng: &mut Rng) -> Range<usize> {
    let at = place(bytes, rng);
    let start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end + 1);
    start..end
}

/// Puts another value behind a colon, up to the next comma, bracket or line.
fn put_value(bytes: &mut Vec<u8>, rng: &mut Rng, value: &[u8]) {
    let Some(start) = one_of(bytes, rng, |byte| byte == b':').map(|colon| colon + 1) else { return };
    let length = bytes[start..].iter().position(|byte| b",}]\n".contains(byte)).unwrap_or(0);
    bytes.splice(start..start + length, value.iter().copied());
}
