//! Datagrams. Those of a socket that serves many peers are received by one request that goes on, each with its sender
//! (multishot recvmsg, Linux 6.0), and sent to an address (Linux 6.2); those of a connected socket like a stream's
//! bytes.

use super::queues::Ring;
use super::submit::BUFFER_GROUP;
use super::token::{Op, Token};
use crate::sys::datagram::Peer;
use crate::transport::MESSAGE_ROOM;
use io_uring::opcode;
use io_uring::types::{Fd, Fixed};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct io_uring_recvmsg_out`: lengths of name, control data and payload, and flags, which come before them.
const LENGTHS: usize = 16;

/// Bytes of a buffer that holds any datagram and what comes before it, in whole pages.
pub const BUFFER_BYTES: u32 = (LENGTHS + Peer::ROOM + MESSAGE_ROOM).next_multiple_of(4096) as u32;

impl Ring {
    /// Receives datagrams, each into a buffer of its own, until a completion says that no more follow. The socket must
    /// stay open until then.
    pub fn receive_datagrams(&mut self, socket: BorrowedFd<'_>) {
        let shape = self.datagram_shape.get_or_insert_with(|| {
            // SAFETY: msghdr is plain integers and pointers; all zero is a value of it.
            let mut shape: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
            shape.msg_namelen = Peer::ROOM as libc::socklen_t;
            shape
        });
        let entry = opcode::RecvMsgMulti::new(Fd(socket.as_raw_fd()), &raw const **shape, BUFFER_GROUP).build();
        self.push(&[entry.user_data(Token::new(Op::ReceiveFrom, 0, 0).0)], true);
    }

    /// Sends a lease: the address ([`Peer::padded`]), then the datagram. The lease ends with it.
    pub fn send_datagram(&mut self, socket: BorrowedFd<'_>, lease: u32) {
        let (address, datagram) = self.leases.bytes(lease).split_at(Peer::ROOM);
        let len = datagram.len() as u32;
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), datagram.as_ptr(), len)
            .dest_addr(address.as_ptr().cast())
            .dest_addr_len(Peer::ROOM as libc::socklen_t)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        self.leases.begin(lease);
        self.push(&[entry.user_data(Token::new(Op::SendTo, 0, 0).with_lease(lease).0)], true);
        self.leases.release(lease);
    }

    /// Sends a lease as one datagram of the connected socket in the slot of the token, whatever others are on their
    /// way. The lease, which the token names, ends with it.
    pub fn send_connected(&mut self, token: Token) {
        let datagram = self.leases.bytes(token.lease());
        let entry = opcode::Send::new(Fixed(token.slot()), datagram.as_ptr(), datagram.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        self.leases.begin(token.lease());
        self.push(&[entry.user_data(token.0)], true);
        self.leases.release(token.lease());
    }
}

/// Reads what a receive of [`Ring::receive_datagrams`] put into a buffer: the datagram, its sender, and whether it had
/// been longer. `None`: it is not laid out as the kernel says (io_uring_prep_recvmsg_multishot(3)).
pub fn received(buffer: &[u8]) -> Option<(&[u8], Peer, bool)> {
    let (lengths, rest) = buffer.split_first_chunk::<LENGTHS>()?;
    let word = |index: usize| lengths[4 * index..].first_chunk().map(|word| u32::from_ne_bytes(*word));
    let (name, payload, flags) = (word(0)? as usize, word(2)? as usize, word(3)?);
    let (address, datagram) = rest.split_at_checked(Peer::ROOM)?;
    let truncated = flags & libc::MSG_TRUNC as u32 != 0 || payload > datagram.len();
    Some((&datagram[..payload.min(datagram.len())], Peer::from_raw(address.get(..name)?)?, truncated))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(lengths: [u32; 4], rest: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = lengths.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend((0..rest).map(|n| n as u8));
        bytes
    }

    #[test]
    fn a_buffer_is_read_as_it_is_laid_out() {
        let whole = buffer([16, 0, 3, 0], Peer::ROOM + 3);
        let (datagram, peer, truncated) = received(&whole).unwrap();
        assert_eq!((datagram, truncated), (&[28, 29, 30][..], false));
        assert_eq!(peer.raw(), (0..16).collect::<Vec<u8>>());
        let empty = buffer([28, 0, 0, 0], Peer::ROOM);
        assert_eq!(received(&empty).map(|(datagram, _, truncated)| (datagram.len(), truncated)), Some((0, false)));
    }

    #[test]
    fn what_is_missing_is_noticed() {
        let flagged = buffer([16, 0, 3, libc::MSG_TRUNC as u32], Peer::ROOM + 3);
        let longer = buffer([16, 0, 300, 0], Peer::ROOM + 3);
        for cut in [flagged, longer] {
            assert_eq!(received(&cut).map(|(datagram, _, truncated)| (datagram.len(), truncated)), Some((3, true)));
        }
        for wrong in [buffer([29, 0, 0, 0], Peer::ROOM), buffer([16, 0, 0, 0], Peer::ROOM - 1), vec![0; 15]] {
            assert!(received(&wrong).is_none());
        }
    }
}
