//! Connections by token. A token is a slot and its generation, so that an event for a connection that is gone never
//! reaches the one that has its slot now.

use crate::connection::Connection;

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Since when it awaits what it did when it was looked at last, in milliseconds.
    since_ms: u32,
    connection: Option<Connection>,
}

/// Ten thousand of these are walked in random order: two cache lines each, no more.
const _: () = assert!(size_of::<Slot>() <= 128);

#[derive(Debug, Default)]
pub(crate) struct Slab {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slab {
    /// Connections that are open.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Slots, also of those that are gone.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Takes a connection in and names it.
    pub(crate) fn insert(&mut self, connection: Connection, now_ms: u32) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, since_ms: 0, connection: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        (slot.connection, slot.since_ms) = (Some(connection), now_ms);
        token(slot.generation, index)
    }

    /// The connection of that name, unless it is gone.
    pub(crate) fn get(&mut self, token: u64) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(token as u32 as usize)?;
        if slot.generation == (token >> 32) as u32 { slot.connection.as_mut() } else { None }
    }

    /// The connection in this slot, if there is one, with its name and the beginning of its wait.
    pub(crate) fn at(&mut self, index: usize) -> Option<(u64, &mut Connection, &mut u32)> {
        let slot = self.slots.get_mut(index)?;
        let name = token(slot.generation, index as u32);
        slot.connection.as_mut().map(|connection| (name, connection, &mut slot.since_ms))
    }

    /// Takes a connection out; its token is stale from here on.
    pub(crate) fn remove(&mut self, token: u64) -> Option<Connection> {
        let connection = self.get(token).is_some().then(|| {
            let slot = &mut self.slots[token as u32 as usize];
            slot.generation = slot.generation.wrapping_add(1) & GENERATIONS;
            slot.connection.take()
        })?;
        self.free.push(token as u32);
        connection
    }

    /// The names of all connections that are open.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = u64> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| slot.connection.is_some());
        open.map(|(index, slot)| token(slot.generation, index as u32))
    }
}

/// The highest bit stays free, so that no token is [`crate::engine::LISTENER`].
const GENERATIONS: u32 = u32::MAX >> 1;

fn token(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    #[test]
    fn a_stale_token_finds_nobody() {
        let connection =
            || Connection::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()), false, None, None);
        let mut slab = Slab::default();
        let first = slab.insert(connection(), 0);
        assert!(slab.get(first).is_some());
        assert!(slab.remove(first).is_some());
        let second = slab.insert(connection(), 0);
        assert_eq!(first as u32, second as u32, "the slot is used again");
        assert!(slab.get(first).is_none() && slab.remove(first).is_none());
        assert_eq!((slab.len(), slab.tokens().collect::<Vec<_>>()), (1, vec![second]));
    }
}
