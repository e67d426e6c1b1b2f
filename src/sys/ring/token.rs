//! What a completion is about, in the 64 bits of user data that the kernel hands back untouched.
//!
//! | bits | 63..60 | 59..44 | 43..20 | 19..0 |
//! |---|---|---|---|---|
//! | | operation | generation of the slot | lease | slot |
//!
//! The generation tells a completion for a socket that is gone from one for the socket that has its slot now. It wraps
//! after 65,536 sockets in one slot, and a completion outlives its socket by one pass of the loop at most.

/// Slots of a ring: the kernel takes no larger table (IORING_MAX_FIXED_FILES, Linux 6.18).
pub const SLOTS_MAX: u32 = 1 << SLOT_BITS;
/// Leases of a ring.
pub const LEASES_MAX: u32 = 1 << LEASE_BITS;

const SLOT_BITS: u32 = 20;
const LEASE_BITS: u32 = 24;
const GENERATION_BITS: u32 = 16;

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Accepts until told otherwise (multishot).
    Accept = 1,
    /// The chain that makes a connection: socket, options, bind, connect.
    Connect,
    /// Looks whether a new connection is connected to itself.
    Verify,
    /// Receives until told otherwise (multishot).
    Receive,
    /// Receives what is there, without waiting.
    Look,
    Send,
    EndStream,
    /// The same, where there is no descriptor for it.
    Shutdown,
    Close,
    Cancel,
    /// Receives datagrams of anybody until told otherwise (multishot).
    ReceiveFrom,
    SendTo,
}

impl Op {
    const ALL: [Self; 12] = [
        Self::Accept,
        Self::Connect,
        Self::Verify,
        Self::Receive,
        Self::Look,
        Self::Send,
        Self::EndStream,
        Self::Shutdown,
        Self::Close,
        Self::Cancel,
        Self::ReceiveFrom,
        Self::SendTo,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub u64);

impl Token {
    #[inline]
    pub fn new(op: Op, generation: u16, slot: u32) -> Self {
        debug_assert!(slot < SLOTS_MAX);
        let high = u64::from(op as u8) << (GENERATION_BITS + LEASE_BITS + SLOT_BITS);
        Self(high | u64::from(generation) << (LEASE_BITS + SLOT_BITS) | u64::from(slot))
    }

    /// The same, with the lease whose bytes a send takes.
    #[inline]
    pub fn with_lease(self, lease: u32) -> Self {
        debug_assert!(lease < LEASES_MAX);
        Self(self.0 & !(u64::from(LEASES_MAX - 1) << SLOT_BITS) | u64::from(lease) << SLOT_BITS)
    }

    /// `None`: nothing of ours.
    #[inline]
    pub fn op(self) -> Option<Op> {
        let code = (self.0 >> (GENERATION_BITS + LEASE_BITS + SLOT_BITS)) as usize;
        Op::ALL.get(code.wrapping_sub(1)).copied()
    }

    #[inline]
    pub fn generation(self) -> u16 {
        (self.0 >> (LEASE_BITS + SLOT_BITS)) as u16
    }

    #[inline]
    pub fn slot(self) -> u32 {
        self.0 as u32 & (SLOTS_MAX - 1)
    }

    #[inline]
    pub fn lease(self) -> u32 {
        (self.0 >> SLOT_BITS) as u32 & (LEASES_MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_back_what_was_put_in() {
        for op in Op::ALL {
            for (generation, slot, lease) in [(0, 0, 0), (u16::MAX, SLOTS_MAX - 1, LEASES_MAX - 1), (7, 5, 3)] {
                let token = Token::new(op, generation, slot).with_lease(lease);
                assert_eq!(
                    (token.op(), token.generation(), token.slot(), token.lease()),
                    (Some(op), generation, slot, lease)
                );
                assert_eq!(token.with_lease(0), Token::new(op, generation, slot));
            }
        }
        assert_eq!((Token(0).op(), Token(u64::MAX).op()), (None, None));
    }
}
