//! What a key-value server remembers: bytes by key, for all threads, within a bound.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of keys and values that are kept; beyond it the oldest go.
const BYTES_MAX: usize = 1 << 30;
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
    born: u64,
}

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
    entries: HashMap<Vec<u8>, Entry>,
    /// Keys in the order in which they were first written, with the version of then. Those that were removed meanwhile
    /// are still there.
    order: VecDeque<(Vec<u8>, u64)>,
    bytes: usize,
    bytes_max: usize,
    versions: u64,
    /// What a protocol counts, by numbers of its own. A store serves one protocol.
    pub counts: [u64; COUNTS],
}

impl Store {
    /// One that keeps so many bytes of keys and values.
    pub fn within(bytes_max: usize) -> Self {
        let (entries, order) = (HashMap::new(), VecDeque::new());
        let inner = Inner { entries, order, bytes: 0, bytes_max, versions: 0, counts: [0; COUNTS] };
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

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of them are kept at most.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Writes, in place where the key is there already.
    pub fn set(&mut self, key: &[u8], value: &[u8], flags: u32) {
        self.versions += 1;
        let version = self.versions;
        if let Some(entry) = self.entries.get_mut(key) {
            self.bytes = self.bytes - entry.value.len() + value.len();
            entry.value.clear();
            entry.value.extend_from_slice(value);
            (entry.flags, entry.version) = (flags, version);
        } else {
            self.bytes += key.len() + value.len();
            self.order.push_back((key.to_vec(), version));
            self.entries.insert(key.to_vec(), Entry { value: value.to_vec(), flags, version, born: version });
        }
        while self.bytes > self.bytes_max {
            let Some((oldest, born)) = self.order.pop_front() else { return };
            if self.entries.get(&oldest).is_some_and(|entry| entry.born == born) {
                self.remove(&oldest);
            }
        }
    }

    /// Whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        self.bytes -= key.len() + entry.value.len();
        if self.order.len() > 2 * self.entries.len() + 1024 {
            let entries = &self.entries;
            self.order.retain(|(key, born)| entries.get(key).is_some_and(|entry| entry.born == *born));
        }
        true
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let store = Store::within(1000);
        let mut inner = store.lock();
        let half = [b'x'; 500];
        inner.set(b"a", &half, 0);
        inner.set(b"b", b"y", 7);
        assert_eq!(inner.get(b"b").map(|e| (e.value.as_slice(), e.flags)), Some((&b"y"[..], 7)));
        inner.set(b"c", &half, 0);
        assert!(inner.get(b"a").is_none() && inner.get(b"b").is_some() && inner.get(b"c").is_some());
        assert!(inner.remove(b"b") && !inner.remove(b"b"));
        assert_eq!(inner.len(), 1);
    }
}
