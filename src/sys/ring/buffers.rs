//! Buffers that the kernel receives into: it takes one when bytes arrive, not when a receive is armed, so that ten
//! thousand idle connections need none (IORING_REGISTER_PBUF_RING, Linux 5.19).
//!
//! Buffers are given to the kernel through a ring in shared memory, whose tail is ours to move and whose head is the
//! kernel's. A [`Ledger`] knows where each buffer is, so that none is given away twice and none that the kernel may
//! write to is read.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// Received bytes: `len` of them, in one buffer, or (in bundles) in as many as it takes, in the order in which they
/// were given to the kernel. It stands for the right to read them, so there is one of each; it must be given back.
#[derive(Debug, PartialEq, Eq)]
pub struct Filled {
    /// Whose buffers these are.
    owner: u32,
    /// The first buffer, and where in it the bytes begin.
    first: u16,
    offset: u32,
    len: u32,
}

impl Filled {
    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// No buffer: there are 2^15 at most.
const NONE: u16 = u16::MAX;

/// Only its being different from one ledger to the next matters, and no order.
static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// Where each buffer is. Pure, so that it can be put to the test without a kernel.
#[derive(Debug)]
pub struct Ledger {
    /// Unlike that of any other ledger of this process.
    id: u32,
    size: u32,
    /// By buffer: the one that was given away behind it, where a bundle goes on. It holds for as long as we have the
    /// first, in whatever order others are given back; the entries of the shared ring do not.
    next: Vec<u16>,
    /// The one that was given away last.
    last: Option<u16>,
    /// By buffer: bytes of it that have been used, where the kernel goes on with it.
    used: Vec<u32>,
    /// By buffer: whether we have it.
    ours: Vec<bool>,
    /// By buffer: how many [`Filled`] there are of it. More than one only where the kernel goes on with a buffer
    /// (IOU_PBUF_RING_INC); it goes back with the last of them.
    parts: Vec<u32>,
    ours_count: u32,
    tail: u16,
}

impl Ledger {
    /// `count` buffers of `size` bytes, all of them ours. `count` is a power of two, of 2^15 at most.
    pub fn new(count: u16, size: u32) -> Self {
        assert!(count.is_power_of_two() && count <= 1 << 15 && size > 0);
        let n = usize::from(count);
        let ours_count = u32::from(count);
        let next = vec![NONE; n];
        let (used, parts) = (vec![0; n], vec![0; n]);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self { id, size, next, last: None, used, ours: vec![true; n], parts, ours_count, tail: 0 }
    }

    /// Buffers that we have.
    pub fn ours_count(&self) -> u32 {
        self.ours_count
    }

    /// Gives a buffer to the kernel, and says at which index of the ring.
    pub(super) fn give(&mut self, buffer: u16) -> u16 {
        assert!(std::mem::replace(&mut self.ours[usize::from(buffer)], false), "a buffer is given away once");
        let index = self.tail & (self.ours.len() - 1) as u16;
        if let Some(last) = self.last.replace(buffer) {
            self.next[usize::from(last)] = buffer;
        }
        self.next[usize::from(buffer)] = NONE;
        self.used[usize::from(buffer)] = 0;
        self.tail = self.tail.wrapping_add(1);
        self.ours_count -= 1;
        index
    }

    /// The kernel says that it has put `len` bytes into `first` (and, in a bundle, those behind it). `None`: that
    /// cannot be.
    pub(super) fn take(&mut self, first: u16, len: u32, more: bool) -> Option<Filled> {
        if *self.ours.get(usize::from(first))? || len == 0 {
            return None;
        }
        let offset = self.used[usize::from(first)];
        let filled = Filled { owner: self.id, first, offset, len };
        // One buffer is by far the most frequent case, and needs no list.
        if offset + len <= self.size {
            self.take_one(first, offset + len, more);
            return Some(filled);
        }
        let buffers: Vec<(u16, u32)> = self.pieces(&filled).map(|(buffer, _, to)| (buffer, to)).collect();
        if buffers.iter().any(|(buffer, _)| *self.ours.get(usize::from(*buffer)).unwrap_or(&true)) {
            return None;
        }
        let last = buffers.len() - 1;
        for (index, (buffer, end)) in buffers.into_iter().enumerate() {
            self.take_one(buffer, end, more && index == last);
        }
        Some(filled)
    }

    fn take_one(&mut self, buffer: u16, end: u32, more: bool) {
        self.parts[usize::from(buffer)] += 1;
        if more {
            self.used[usize::from(buffer)] = end;
        } else {
            self.ours[usize::from(buffer)] = true;
            self.ours_count += 1;
        }
    }

    /// One of the [`Filled`] of a buffer is done with. Says whether the buffer is to be given to the kernel.
    pub(super) fn part_done(&mut self, buffer: u16) -> bool {
        let parts = &mut self.parts[usize::from(buffer)];
        *parts -= 1;
        *parts == 0 && self.ours[usize::from(buffer)]
    }

    /// The pieces of received bytes: buffer, and from where to where in it.
    pub(super) fn pieces<'a>(&'a self, filled: &Filled) -> impl Iterator<Item = (u16, u32, u32)> + use<'a> {
        let (size, mut left, mut offset) = (self.size, filled.len, filled.offset);
        let mut buffer = filled.first;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let len = left.min(size - offset);
            let piece = (buffer, offset, offset + len);
            // Behind the last there is none, and behind none there is none either.
            let next = self.next.get(usize::from(buffer)).copied().unwrap_or(NONE);
            (left, offset, buffer) = (left - len, 0, next);
            Some(piece)
        })
    }
}

/// The buffers of one ring, and the ledger of who has them.
#[derive(Debug)]
pub struct Buffers {
    region: Rc<Region>,
    ledger: Ledger,
    /// What the kernel has been told.
    published: u16,
}

impl Buffers {
    /// `count` (a power of two) buffers of `size` bytes. Memory is taken when the kernel first writes to it.
    pub(super) fn new(count: u16, size: u32) -> io::Result<Self> {
        let region = Rc::new(Region::new(usize::from(count), size as usize)?);
        let mut buffers = Self { region, ledger: Ledger::new(count, size), published: 0 };
        for buffer in 0..count {
            buffers.give(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    pub(super) fn region(&self) -> &Rc<Region> {
        &self.region
    }

    pub(super) fn take(&mut self, first: u16, len: u32, more: bool) -> Option<Filled> {
        self.ledger.take(first, len, more)
    }

    /// The received bytes, piece by piece: more than one only in bundles.
    #[inline]
    pub fn pieces<'a>(&'a self, filled: &'a Filled) -> impl Iterator<Item = &'a [u8]> {
        assert_eq!(filled.owner, self.ledger.id, "received into these buffers");
        self.ledger.pieces(filled).map(|(buffer, from, to)| self.region.slice(buffer, from as usize, to as usize))
    }

    /// Gives the memory back. The kernel learns of it with [`Buffers::publish`].
    #[inline]
    pub fn give_back(&mut self, filled: Filled) {
        assert_eq!(filled.owner, self.ledger.id, "received into these buffers");
        if filled.offset + filled.len <= self.ledger.size {
            return self.part_done(filled.first);
        }
        let buffers: Vec<u16> = self.ledger.pieces(&filled).map(|(buffer, ..)| buffer).collect();
        for buffer in buffers {
            self.part_done(buffer);
        }
    }

    #[inline]
    fn part_done(&mut self, buffer: u16) {
        if self.ledger.part_done(buffer) {
            self.give(buffer);
        }
    }

    /// Buffers that the kernel has.
    pub fn given(&self) -> usize {
        usize::from(self.region.count()) - self.ledger.ours_count() as usize
    }

    fn give(&mut self, buffer: u16) {
        let index = self.ledger.give(buffer);
        self.region.write_entry(index, buffer);
    }

    /// Lets the kernel see what has been given back.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.ledger.tail {
            self.published = self.ledger.tail;
            self.region.store_tail(self.ledger.tail);
        }
    }
}

/// One entry of the ring that is shared with the kernel (`struct io_uring_buf`).
#[repr(C)]
struct RingEntry {
    address: u64,
    len: u32,
    buffer: u16,
    /// In the first entry this is the ring's tail.
    reserved: u16,
}

const _: () = assert!(size_of::<RingEntry>() == 16 && std::mem::offset_of!(RingEntry, reserved) == 14);

/// Memory for the ring and, behind it, the buffers. Unmapped when the last holder is gone.
#[derive(Debug)]
pub(super) struct Region {
    start: *mut u8,
    bytes: usize,
    count: usize,
    size: usize,
}

impl Region {
    fn new(count: usize, size: usize) -> io::Result<Self> {
        let bytes = Self::ring_bytes(count) + count * size;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping touches no memory that anybody has.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), bytes, count, size })
    }

    /// The ring, rounded up to pages: the kernel wants it aligned, and the buffers behind it begin on a page.
    fn ring_bytes(count: usize) -> usize {
        (count * size_of::<RingEntry>()).next_multiple_of(4096)
    }

    pub(super) fn address(&self) -> u64 {
        self.start as u64
    }

    pub(super) fn count(&self) -> u16 {
        self.count as u16
    }

    fn buffer(&self, buffer: u16) -> *mut u8 {
        assert!(usize::from(buffer) < self.count);
        // SAFETY: within the mapping, which holds the ring and then `count` buffers of `size` bytes.
        unsafe { self.start.add(Self::ring_bytes(self.count) + usize::from(buffer) * self.size) }
    }

    /// Bytes of a buffer that the ledger says is ours, or whose bytes up to `to` the kernel has finished with.
    fn slice(&self, buffer: u16, from: usize, to: usize) -> &[u8] {
        assert!(from <= to && to <= self.size);
        // SAFETY: within the buffer, by the assertion. The kernel wrote these bytes before it told us of them, and
        // writes to them again only when they have been given back, for which the `Filled` that the caller borrows
        // for as long as the slice must be given up.
        unsafe { std::slice::from_raw_parts(self.buffer(buffer).add(from), to - from) }
    }

    /// Fills in an entry, field by field: the last one of the first entry is the tail, which is not ours to overwrite
    /// here.
    fn write_entry(&self, index: u16, buffer: u16) {
        assert!(usize::from(index) < self.count);
        let address = self.buffer(buffer) as u64;
        // SAFETY: the entry is within the ring at the start of the mapping, and the kernel reads entries only up to
        // the tail, which is moved beyond this one after it has been written. No reference is made, only raw writes.
        unsafe {
            let entry = self.start.cast::<RingEntry>().add(usize::from(index));
            (&raw mut (*entry).address).write(address);
            (&raw mut (*entry).len).write(self.size as u32);
            (&raw mut (*entry).buffer).write(buffer);
        }
    }

    /// Moves the tail.
    fn store_tail(&self, tail: u16) {
        // SAFETY: the last field of the first entry is the tail; it is aligned, and shared with the kernel only
        // through atomic accesses. Release: the kernel's acquiring load of the tail must see the entries before it.
        unsafe {
            let first = self.start.cast::<RingEntry>();
            AtomicU16::from_ptr(&raw mut (*first).reserved).store(tail, Ordering::Release);
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody holds a pointer into it: slices borrow from the region, and the ring
        // that the kernel knew it by is closed before (it holds the region, see `Ring`).
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_round() {
        let mut ledger = Ledger::new(4, 100);
        assert_eq!((0..4).map(|b| ledger.give(b)).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(ledger.ours_count(), 0);
        let filled = ledger.take(2, 30, false).unwrap();
        assert_eq!(ledger.pieces(&filled).collect::<Vec<_>>(), [(2, 0, 30)]);
        assert!(ledger.take(2, 30, false).is_none(), "we have it already");
        assert!(ledger.take(9, 30, false).is_none() && ledger.take(1, 0, false).is_none());
        assert_eq!((ledger.give(2), ledger.ours_count()), (0, 0));
    }

    #[test]
    fn a_bundle_goes_on_in_the_order_in_which_buffers_were_given() {
        let mut ledger = Ledger::new(4, 10);
        for buffer in [2, 0, 3, 1] {
            ledger.give(buffer);
        }
        let filled = ledger.take(0, 25, false).unwrap();
        assert_eq!(ledger.pieces(&filled).collect::<Vec<_>>(), [(0, 0, 10), (3, 0, 10), (1, 0, 5)]);
        assert_eq!(ledger.ours_count(), 3);
        assert!(ledger.take(2, 15, false).is_none(), "the one behind it is not the kernel's");
    }

    #[test]
    fn what_is_held_stays_where_it_is_when_later_buffers_are_given_back() {
        let mut ledger = Ledger::new(4, 10);
        for buffer in 0..4 {
            ledger.give(buffer);
        }
        let (held, later) = (ledger.take(0, 15, false).unwrap(), ledger.take(2, 10, false).unwrap());
        let pieces = ledger.pieces(&held).collect::<Vec<_>>();
        assert_eq!(pieces, [(0, 0, 10), (1, 0, 5)]);
        // Its place in the shared ring is the one where buffer 0 was.
        assert_eq!(ledger.give(later.first), 0);
        assert_eq!(ledger.pieces(&held).collect::<Vec<_>>(), pieces);
    }

    #[test]
    fn a_bundle_ends_with_the_last_buffer_that_was_given() {
        let mut ledger = Ledger::new(4, 10);
        ledger.give(1);
        assert!(ledger.take(1, 11, false).is_none() && ledger.take(1, 31, false).is_none());
        assert_eq!(ledger.ours_count(), 3);
    }

    #[test]
    fn a_buffer_that_the_kernel_goes_on_with_stays_its_own() {
        let mut ledger = Ledger::new(2, 100);
        ledger.give(0);
        ledger.give(1);
        let first = ledger.take(0, 30, true).unwrap();
        let second = ledger.take(0, 20, true).unwrap();
        assert_eq!(ledger.pieces(&second).collect::<Vec<_>>(), [(0, 30, 50)]);
        let last = ledger.take(0, 50, false).unwrap();
        assert_eq!(ledger.pieces(&last).collect::<Vec<_>>(), [(0, 50, 100)]);
        assert_eq!((ledger.ours_count(), first.len()), (1, 30));
        // Whoever comes last gives the buffer back: bytes of the first would change under its holder otherwise.
        assert!(!ledger.part_done(last.first) && !ledger.part_done(second.first));
        assert!(ledger.part_done(first.first));
    }

    #[test]
    #[should_panic(expected = "given away once")]
    fn a_buffer_is_not_given_away_twice() {
        let mut ledger = Ledger::new(2, 100);
        ledger.give(1);
        ledger.give(1);
    }
}
