//! Buffers that connections borrow while they have something to keep.

/// Buffers that are kept for the next who needs one; what is given back beyond is freed.
const SPARE: usize = 256;

/// A stack of empty buffers. Most connections hold none, so that an idle one costs its slot only.
#[derive(Debug)]
pub(crate) struct Pool(Vec<Vec<u8>>);

impl Pool {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(SPARE))
    }

    /// Puts `bytes` at the end of `buffer`, which must be empty: it is replaced with one of the pool.
    pub(crate) fn keep(&mut self, buffer: &mut Vec<u8>, bytes: &[u8]) {
        debug_assert!(buffer.is_empty());
        if buffer.capacity() == 0 {
            *buffer = self.0.pop().unwrap_or_default();
        }
        // Exactly: growth by doubling could pass the bound that a connection is promised to cost.
        buffer.reserve_exact(bytes.len());
        buffer.extend_from_slice(bytes);
    }

    /// Takes a buffer back.
    pub(crate) fn give_back(&mut self, buffer: &mut Vec<u8>) {
        let mut buffer = std::mem::take(buffer);
        if buffer.capacity() > 0 && self.0.len() < SPARE {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_given_back_is_used_again() {
        let mut pool = Pool::new();
        let mut buffer = Vec::new();
        pool.keep(&mut buffer, b"abc");
        let address = buffer.as_ptr();
        pool.give_back(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
        pool.keep(&mut buffer, b"de");
        assert_eq!((buffer.as_slice(), buffer.as_ptr()), (&b"de"[..], address));
    }
}
