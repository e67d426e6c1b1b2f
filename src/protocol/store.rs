//! What a key-value server remembers: bytes by key, for all threads, within a bound of memory.
//!
//! What counts is what things cost, not what they carry: the table with its empty buckets, and each key and value as
//! the allocator rounds it. What does not fit is refused; what is there stays.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of memory that a store may take where nothing else is said.
pub const BYTES_MAX: usize = 1 << 30;
/// Places in [`Inner::counts`].
pub const COUNTS: usize = 32;

/// A value, and what was said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub value: Vec<u8>,
    /// Of memcached: 32 bits that mean something to the client.
    pub flags: u32,
    /// Another each time that the key is written.
    pub version: u64,
}

/// There is no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Entries by key.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    tallies: Mutex<Vec<Tally>>,
}

/// What one thread counted, such as the commands it carried out. All may read it; only that thread adds.
#[derive(Clone, Debug)]
pub struct Tally(Arc<[AtomicU64]>);

impl Tally {
    pub fn add(&self, index: usize) {
        self.0[index].fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::within(BYTES_MAX)
    }
}

/// The entries, while nobody else has them.
#[derive(Debug)]
pub struct Inner {
    entries: HashMap<Box<[u8]>, Entry>,
    /// Places of the table, empty ones too.
    buckets: usize,
    /// Memory of keys and values.
    heap_bytes: usize,
    bytes_max: usize,
    versions: u64,
    /// What a protocol counts, by numbers of its own. A store serves one protocol.
    pub counts: [u64; COUNTS],
}

impl Store {
    /// One that takes so many bytes of memory at most.
    pub fn within(bytes_max: usize) -> Self {
        let entries = HashMap::new();
        let inner = Inner { entries, buckets: 0, heap_bytes: 0, bytes_max, versions: 0, counts: [0; COUNTS] };
        Self { inner: Mutex::new(inner), tallies: Mutex::default() }
    }

    /// One more thread is going to count, from 0 on.
    pub fn tally(&self, counts: usize) -> Tally {
        let tally = Tally(std::iter::repeat_with(|| AtomicU64::new(0)).take(counts).collect());
        self.tallies().push(tally.clone());
        tally
    }

    /// The sums of what the threads counted.
    pub fn tallied(&self, counts: usize) -> Vec<u64> {
        let tallies = self.tallies();
        let count = |tally: &Tally, index: usize| tally.0.get(index).map_or(0, |count| count.load(Ordering::Relaxed));
        (0..counts).map(|index| tallies.iter().map(|tally| count(tally, index)).sum()).collect()
    }

    /// All counts are 0 again.
    pub fn reset_tallies(&self) {
        self.tallies().iter().flat_map(|tally| tally.0.iter()).for_each(|count| count.store(0, Ordering::Relaxed));
    }

    fn tallies(&self) -> MutexGuard<'_, Vec<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Alone with the entries.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        self.heap_bytes + table_bytes(self.buckets)
    }

    /// How many it may take.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether all of these could be written, also if none of the keys is there.
    pub fn has_room_for<'a>(&self, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
        let cost = |(count, bytes), (key, value): (&[u8], &[u8])| {
            (count + 1, bytes + allocated(key.len()) + allocated(value.len()))
        };
        let (count, bytes) = pairs.fold((0, 0), cost);
        self.fits(bytes + self.growth_bytes(count))
    }

    /// Writes, in place where the key is there already.
    ///
    /// # Errors
    /// There is no room for it; nothing has changed then.
    pub fn set(&mut self, key: &[u8], value: &[u8], flags: u32) -> Result<(), Full> {
        let version = self.versions + 1;
        if let Some(entry) = self.entries.get(key) {
            let (before, in_place) = (allocated(entry.value.capacity()), is_in_place(&entry.value, value.len()));
            // Before the old one is gone, both are there.
            if !in_place && !self.fits(allocated(value.len())) {
                return Err(Full);
            }
            let Some(entry) = self.entries.get_mut(key) else { return Err(Full) };
            if in_place {
                entry.value.clear();
                entry.value.extend_from_slice(value);
            } else {
                entry.value = value.to_vec();
            }
            (entry.flags, entry.version) = (flags, version);
            self.heap_bytes = self.heap_bytes - before + allocated(entry.value.capacity());
        } else {
            let bytes = allocated(key.len()) + allocated(value.len());
            if !self.fits(bytes + self.growth_bytes(1)) {
                return Err(Full);
            }
            self.make_room();
            self.entries.insert(key.into(), Entry { value: value.to_vec(), flags, version });
            self.heap_bytes += bytes;
        }
        self.versions = version;
        Ok(())
    }

    /// Whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        self.heap_bytes -= allocated(key.len()) + allocated(entry.value.capacity());
        // The table goes down too, and not so soon that it would be back at once.
        if self.buckets > BUCKETS_KEPT && self.entries.len() < self.buckets / 8 {
            self.rebuild(self.buckets / 4);
        }
        true
    }

    pub fn clear(&mut self) {
        self.entries = HashMap::new();
        (self.buckets, self.heap_bytes) = (0, 0);
    }

    fn fits(&self, more: usize) -> bool {
        self.bytes().saturating_add(more) <= self.bytes_max
    }

    /// What the table takes besides when so many more are written: a larger one, while the one before is still there.
    fn growth_bytes(&self, more: usize) -> usize {
        let needed = buckets_for(self.entries.len() + more);
        if needed <= self.buckets { 0 } else { table_bytes(needed) }
    }

    /// Has a bucket for one more. We say ourselves when the table grows: `HashMap` would double it also for what keys
    /// that are gone have left behind, and that would be more than was asked for.
    fn make_room(&mut self) {
        let needed = buckets_for(self.entries.len() + 1);
        if needed > self.buckets || self.entries.len() == self.entries.capacity() {
            self.rebuild(needed.max(self.buckets));
        }
    }

    fn rebuild(&mut self, buckets: usize) {
        let mut entries = HashMap::with_capacity(capacity_of(buckets));
        entries.extend(std::mem::take(&mut self.entries));
        (self.entries, self.buckets) = (entries, buckets);
    }
}

/// A table that small is kept.
const BUCKETS_KEPT: usize = 1 << 12;

/// A value is written over the one before where that is neither too small nor much too large.
fn is_in_place(before: &Vec<u8>, len: usize) -> bool {
    before.capacity() >= len && before.capacity() <= 2 * len + 64
}

/// What the allocator takes for so many bytes: glibc has 8 of its own before each, and rounds to 16, from 32 on.
fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

/// The buckets of a table of so many entries: a power of two, of which one in four stays empty. That is more than
/// `HashMap` wants, so that it can be a while before what is gone is in the way.
fn buckets_for(entries: usize) -> usize {
    if entries == 0 { 0 } else { (entries * 4).div_ceil(3).next_power_of_two().max(4) }
}

/// Entries for which `HashMap` takes that many buckets.
fn capacity_of(buckets: usize) -> usize {
    if buckets < 16 { buckets - 1 } else { buckets / 8 * 7 }
}

/// Each bucket has a byte of its own besides.
fn table_bytes(buckets: usize) -> usize {
    buckets * (size_of::<(Box<[u8]>, Entry)>() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_there_stays() {
        let store = Store::within(1900);
        let mut inner = store.lock();
        let half = [b'x'; 800];
        assert_eq!(inner.set(b"a", &half, 0), Ok(()));
        assert_eq!(inner.set(b"b", b"y", 7), Ok(()));
        assert_eq!(inner.get(b"b").map(|e| (e.value.as_slice(), e.flags)), Some((&b"y"[..], 7)));
        assert_eq!((inner.set(b"c", &half, 0), inner.set(b"b", &half, 0)), (Err(Full), Err(Full)));
        assert!(!inner.has_room_for([(&b"c"[..], &half[..])].into_iter()));
        assert_eq!(inner.get(b"b").map(|e| e.value.as_slice()), Some(&b"y"[..]), "what is there stays");
        assert!(inner.remove(b"a") && !inner.remove(b"a"));
        assert_eq!((inner.set(b"c", &half, 0), inner.len()), (Ok(()), 2));
    }

    #[test]
    fn small_things_cost_what_they_take() {
        let store = Store::within(1 << 20);
        let mut inner = store.lock();
        let mut number = 0u64;
        while inner.set(&number.to_be_bytes(), b"", 0).is_ok() {
            number += 1;
        }
        // A bucket of the table, more than half of which are empty after it has grown, and 32 bytes for the key.
        let each = inner.bytes() / inner.len();
        assert!((100..=185).contains(&each), "{each} bytes each");
        assert!(inner.bytes() <= 1 << 20);
        let full = inner.bytes();
        (0..number).for_each(|number| assert!(inner.remove(&number.to_be_bytes())));
        assert!(inner.bytes() < full / 2, "{} of {full} bytes are left", inner.bytes());
        inner.clear();
        assert_eq!(inner.bytes(), 0);
    }

    #[test]
    fn a_value_that_grows_and_shrinks_leaves_nothing_behind() {
        let store = Store::within(1 << 20);
        let mut inner = store.lock();
        inner.set(b"key", b"1", 0).unwrap();
        let small = inner.bytes();
        inner.set(b"key", &[b'x'; 50_000], 0).unwrap();
        assert!(inner.bytes() >= small + 49_000);
        inner.set(b"key", b"2", 0).unwrap();
        assert_eq!(inner.bytes(), small);
    }

    #[test]
    fn the_table_is_as_large_as_we_say() {
        let store = Store::within(1 << 30);
        let mut inner = store.lock();
        for number in 0u32..20_000 {
            inner.set(&number.to_be_bytes(), b"", 0).unwrap();
            assert_eq!(inner.buckets, buckets_for(inner.len()));
            assert!(inner.entries.capacity() == capacity_of(inner.buckets), "{} {}", inner.buckets, inner.len());
        }
    }

    #[test]
    fn keys_that_come_and_go_cost_no_more_than_those_that_stay() {
        let store = Store::within(64 << 10);
        let mut inner = store.lock();
        let mut last = 0u32;
        while inner.set(&last.to_be_bytes(), b"", 0).is_ok() {
            last += 1;
        }
        let full = inner.bytes();
        for number in 0..10_000u32 {
            assert!(inner.remove(&number.to_be_bytes()));
            assert_eq!(inner.set(&last.to_be_bytes(), b"", 0), Ok(()), "{number}");
            last += 1;
            assert!(inner.bytes() == full && inner.entries.capacity() <= capacity_of(inner.buckets));
        }
    }
}
