//! Bytes that the kernel may read: whoever wants them sent gives them away, and gets the memory back when no send needs
//! it any more.
//!
//! A lease ends when its holder has released it *and* the last completion of a send that reads from it has been seen.
//! Until then its bytes neither move nor change, whatever becomes of the connection.

use super::token::LEASES_MAX;

/// Empty buffers that are kept for the next lease; beyond, memory is freed.
const SPARE: usize = 512;

#[derive(Debug, Default)]
pub struct Leases {
    leases: Vec<Lease>,
    free: Vec<u32>,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Lease {
    bytes: Vec<u8>,
    /// Sends that may still read from it.
    sends: u32,
    released: bool,
}

impl Leases {
    /// Takes bytes in. `None`: there are as many leases as a token can name.
    pub fn lend(&mut self, bytes: Vec<u8>) -> Option<u32> {
        let lease = Lease { bytes, sends: 0, released: false };
        if let Some(id) = self.free.pop() {
            self.leases[id as usize] = lease;
            return Some(id);
        }
        let id = self.leases.len() as u32;
        (id < LEASES_MAX).then(|| {
            self.leases.push(lease);
            id
        })
    }

    /// An empty buffer for the next lease: one that was used before, where there is one.
    pub fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn bytes(&self, id: u32) -> &[u8] {
        &self.leases[id as usize].bytes
    }

    /// A send that reads from it begins.
    #[inline]
    pub fn begin(&mut self, id: u32) {
        debug_assert!(!self.leases[id as usize].released, "a released lease is not sent");
        self.leases[id as usize].sends += 1;
    }

    /// The last completion of such a send has been seen.
    #[inline]
    pub fn end(&mut self, id: u32) {
        let lease = &mut self.leases[id as usize];
        lease.sends -= 1;
        if lease.sends == 0 && lease.released {
            self.recycle(id);
        }
    }

    /// The holder wants nothing of it sent any more.
    #[inline]
    pub fn release(&mut self, id: u32) {
        let lease = &mut self.leases[id as usize];
        debug_assert!(!lease.released, "released once");
        lease.released = true;
        if lease.sends == 0 {
            self.recycle(id);
        }
    }

    /// Leases that have not ended.
    pub fn alive(&self) -> usize {
        self.leases.len() - self.free.len()
    }

    fn recycle(&mut self, id: u32) {
        let mut bytes = std::mem::take(&mut self.leases[id as usize].bytes);
        self.free.push(id);
        if self.spare.len() < SPARE && bytes.capacity() > 0 {
            // Poison, so that a send that still read from it would be seen in what arrives.
            if cfg!(debug_assertions) {
                bytes.fill(0xDD);
            }
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_with_its_last_send_and_not_before_its_release() {
        let mut leases = Leases::default();
        let id = leases.lend(b"abc".to_vec()).unwrap();
        leases.begin(id);
        leases.begin(id);
        leases.end(id);
        leases.release(id);
        assert_eq!((leases.bytes(id), leases.alive()), (&b"abc"[..], 1));
        leases.end(id);
        assert_eq!(leases.alive(), 0);
        let spare = leases.spare();
        assert!(spare.is_empty() && spare.capacity() >= 3, "its memory is used again");
        assert_eq!(leases.lend(spare), Some(id), "so is its number");
    }

    #[test]
    fn a_lease_can_be_sent_again_until_its_release() {
        let mut leases = Leases::default();
        let id = leases.lend(b"abc".to_vec()).unwrap();
        for _ in 0..2 {
            leases.begin(id);
            leases.end(id);
            assert_eq!((leases.bytes(id), leases.alive()), (&b"abc"[..], 1));
        }
        leases.release(id);
        assert_eq!(leases.alive(), 0);
    }

    #[test]
    fn a_lease_that_was_never_sent_ends_at_once() {
        let mut leases = Leases::default();
        let id = leases.lend(vec![1]).unwrap();
        leases.release(id);
        assert_eq!(leases.alive(), 0);
    }
}
