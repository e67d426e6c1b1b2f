//! Replies that are cut where they cannot be understood: the bytes are kept until the rest comes.

use super::{Session, flag};

impl Session {
    pub(super) fn keep(&mut self, slot: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.extend_from_slice(bytes);
        self.kept.insert(slot, kept);
        self.conns[slot as usize].flags |= flag::KEPT;
    }

    pub(super) fn take_kept(&mut self, slot: u32) -> Vec<u8> {
        self.conns[slot as usize].flags &= !flag::KEPT;
        self.kept.remove(&slot).unwrap_or_default()
    }

    pub(super) fn forget_kept(&mut self, slot: u32) {
        if self.conns[slot as usize].flags & flag::KEPT != 0 {
            let kept = self.take_kept(slot);
            self.recycle(kept);
        }
    }

    /// Keeps a buffer's memory for the next incomplete reply.
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}
