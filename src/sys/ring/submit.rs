//! What is asked of the kernel, as submission queue entries. Nothing leaves before the next wait.

use super::flow::{Completion, Driver};
use super::options::Options;
use super::queues::Ring;
use super::token::{Op, Token};
use crate::sys::endpoint::Endpoint;
use crate::sys::errno;
use crate::sys::socket;
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};
use io_uring::{opcode, squeue};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The one group of buffers of a ring.
pub(super) const BUFFER_GROUP: u16 = 0;

/// Values of socket options; the kernel reads them when the request runs.
static ON: libc::c_int = 1;
/// Likewise of SO_LINGER: closing sends a reset.
static RESET: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };
static RECEIVE_BUFFER: libc::c_int = socket::DATAGRAM_BUFFER;

/// An entry for an operation on the socket in a slot: of the ring's own table, or an ordinary descriptor.
macro_rules! on_socket {
    ($ring:expr, $slot:expr, |$target:ident| $entry:expr) => {
        if $ring.options.inline_send {
            let $target = Fd($slot as i32);
            $entry
        } else {
            let $target = Fixed($slot);
            $entry
        }
    };
}

impl Ring {
    /// Accepts from a listener until told otherwise, or (`once`) one connection. The listener must stay open until
    /// the last completion.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, once: bool) {
        let (fd, plain) = (Fd(listener.as_raw_fd()), self.options.inline_send);
        // Close-on-exec is for ordinary descriptors; direct ones refuse it. Non-blocking would only bring EAGAIN.
        let flags = if plain { libc::SOCK_CLOEXEC } else { 0 };
        let entry = if once {
            let place = (!plain).then(DestinationSlot::auto_target);
            let (nobody, no_len) = (std::ptr::null_mut(), std::ptr::null_mut());
            opcode::Accept::new(fd, nobody, no_len).file_index(place).flags(flags).build()
        } else {
            opcode::AcceptMulti::new(fd).allocate_file_index(!plain).flags(flags).build()
        };
        self.push(&[entry.user_data(accept_token().0)], true);
    }

    /// Accepts no more; the accept's last completion tells when.
    pub fn stop_accepting(&mut self) {
        self.cancel(accept_token());
    }

    /// Makes a connection in the slot of the token: one chain of requests with one completion.
    ///
    /// From `source`, it is bound without a port first (IP_BIND_ADDRESS_NO_PORT), as [`socket::connect`] does.
    pub fn connect(&mut self, token: Token, remote: &Endpoint, source: Option<&SocketAddr>) -> io::Result<()> {
        let slot = token.slot();
        let target = Fixed(slot);
        let place = DestinationSlot::try_from_slot_target(slot).map_err(|_| io::Error::other("no such slot"))?;
        let linked = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        let option = |level: i32, name: i32, value: &'static libc::c_int| {
            let (value, len) = (&raw const *value, size_of::<libc::c_int>() as u32);
            opcode::SetSockOpt::new(target, level as u32, name as u32, value.cast(), len).build()
        };
        let mut chain = Vec::with_capacity(6);
        chain.push(opcode::Socket::new(remote.family(), remote.socket_type(), 0).file_index(Some(place)).build());
        match remote {
            Endpoint::Tcp(_) => chain.push(option(libc::IPPROTO_TCP, libc::TCP_NODELAY, &ON)),
            Endpoint::Udp(_) => chain.push(option(libc::SOL_SOCKET, libc::SO_RCVBUF, &RECEIVE_BUFFER)),
            Endpoint::Unix(_) => {}
        }
        if self.reset_on_close && matches!(remote, Endpoint::Tcp(_)) {
            let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_LINGER as u32);
            let (value, len) = ((&raw const RESET).cast(), size_of_val(&RESET) as u32);
            chain.push(opcode::SetSockOpt::new(target, level, name, value, len).build());
        }
        if let Some(address) = &remote.socket_addr() {
            self.verify |= self.may_meet_itself(address, source);
            if !self.remotes.contains(address) {
                self.remotes.push(*address);
            }
            if let Some(source) = source {
                chain.push(option(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &ON));
                let (address, len) = self.address(&Endpoint::Tcp(*source))?;
                chain.push(opcode::Bind::new(target, address, len).build());
            }
        }
        for entry in &mut chain {
            // A failure posts the one completion, and what is behind it in the chain is skipped without a word.
            *entry = entry.clone().flags(linked).user_data(token.0);
        }
        let (address, len) = self.address(remote)?;
        chain.push(opcode::Connect::new(target, address, len).build().user_data(token.0));
        self.push(&chain, true);
        Ok(())
    }

    /// The kernel's form of an address, which this ring keeps.
    fn address(&mut self, address: &Endpoint) -> io::Result<(*const libc::sockaddr, libc::socklen_t)> {
        if let Some(raw) = self.addresses.get(address) {
            return Ok((raw.as_ptr(), raw.len()));
        }
        let raw = self.addresses.entry(address.clone()).or_insert(Box::new(address.raw()?));
        Ok((raw.as_ptr(), raw.len()))
    }

    /// Whether the kernel could choose the remote's own address and port as the local one (see
    /// [`socket::connect_outcome`]). It never does where somebody listens, or where the addresses differ.
    fn may_meet_itself(&self, remote: &SocketAddr, source: Option<&SocketAddr>) -> bool {
        let same_address = source.is_none_or(|source| source.ip() == remote.ip());
        let bound = source.map_or(0, SocketAddr::port);
        let (low, high) = self.ports;
        same_address && if bound == 0 { (low..=high).contains(&remote.port()) } else { bound == remote.port() }
    }

    fn push_one(&mut self, entry: squeue::Entry, token: Token) {
        self.push(&[entry.user_data(token.0)], true);
    }

    /// Something was done at once; the next reaping tells.
    fn done(&mut self, token: Token, result: i32) {
        self.done.push(Completion { token, result, more: false, notice: false, filled: None });
    }

    /// Tries send(2) first. `None`: the ring has to do it.
    fn send_inline(&mut self, token: Token, from: u32, to: u32) -> Option<i32> {
        self.counters.inline_sends += 1;
        let bytes = &self.leases.bytes(token.lease())[from as usize..to as usize];
        // SAFETY: in this mode a slot is an ordinary descriptor, which stays open until `close` of this slot.
        let fd = unsafe { BorrowedFd::borrow_raw(token.slot() as i32) };
        match socket::send_now(fd, bytes) {
            Ok(0) => None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            outcome => Some(errno::result_of(outcome, libc::EIO)),
        }
    }
}

/// Where `len` and `optlen` are in `struct io_uring_sqe`; the crate does not know them as fields of such receives.
const LEN: usize = 24;
const OPTLEN: usize = 44;
const _: () = assert!(size_of::<squeue::Entry>() == 64);

/// What a multishot receive is told so that it ends by itself: how much it takes at once (0: a buffer), and after how
/// many bytes it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    once: u32,
    total: u32,
}

impl Bounds {
    /// It brings no more than `most` bytes. The kernel cuts a bundle to what is left of the total. A single buffer it
    /// does not: it counts what it has put there, so that the last one goes beyond by all but a byte.
    pub(super) fn within(most: u32, buffer_bytes: u32, bundles: bool) -> Self {
        if bundles {
            return Self { once: 0, total: most };
        }
        let once = buffer_bytes.min((most / 2).max(1));
        Self { once: if once < buffer_bytes { once } else { 0 }, total: most - once + 1 }
    }
}

/// A multishot receive with bounds (Linux 6.17; older kernels say EINVAL).
pub(super) fn bounded(mut entry: squeue::Entry, bounds: Bounds) -> squeue::Entry {
    for (at, value) in [(LEN, bounds.once), (OPTLEN, bounds.total)] {
        // SAFETY: an Entry is one io_uring_sqe of 64 bytes, and each of the two fields four aligned bytes in it, of
        // which any value is valid.
        unsafe { (&raw mut entry).cast::<u8>().add(at).cast::<u32>().write(value) };
    }
    entry
}

fn accept_token() -> Token {
    Token::new(Op::Accept, 0, 0)
}

impl Driver for Ring {
    #[inline]
    fn receive(&mut self, token: Token) {
        let entry = on_socket!(self, token.slot(), |target| if self.options.bundles {
            opcode::RecvMultiBundle::new(target, BUFFER_GROUP).build()
        } else {
            opcode::RecvMulti::new(target, BUFFER_GROUP).build()
        });
        let Options { receive_limit: most, buffer_bytes, bundles, .. } = self.options;
        let entry = if most > 0 { bounded(entry, Bounds::within(most, buffer_bytes, bundles)) } else { entry };
        self.push_one(entry, token);
    }

    fn look(&mut self, token: Token) {
        let entry = on_socket!(self, token.slot(), |target| {
            let entry = opcode::Recv::new(target, std::ptr::null_mut(), self.options.look_bytes());
            entry.buf_group(BUFFER_GROUP).flags(libc::MSG_DONTWAIT).build()
        });
        self.push_one(entry.flags(squeue::Flags::BUFFER_SELECT), token);
    }

    #[inline]
    fn send(&mut self, token: Token, from: u32, to: u32) {
        if self.options.inline_send
            && let Some(result) = self.send_inline(token, from, to)
        {
            return self.done(token, result);
        }
        let bytes = &self.leases.bytes(token.lease())[from as usize..to as usize];
        let (start, len) = (bytes.as_ptr(), bytes.len() as u32);
        self.leases.begin(token.lease());
        // WAITALL: the kernel goes on by itself after a short send, and tells one only when it must.
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let zero_copy = self.options.zero_copy.is_some_and(|least| len >= least);
        let entry = on_socket!(self, token.slot(), |target| if zero_copy {
            opcode::SendZc::new(target, start, len).flags(flags).build()
        } else {
            opcode::Send::new(target, start, len).flags(flags).build()
        });
        self.push_one(entry, token);
    }

    fn end_stream(&mut self, token: Token) {
        if !self.options.inline_send {
            // There is no shutdown(2) of a direct descriptor but by a kernel worker thread, which costs far more.
            return self.second_step(token);
        }
        self.counters.shutdowns += 1;
        // SAFETY: as in `send_inline`.
        let fd = unsafe { BorrowedFd::borrow_raw(token.slot() as i32) };
        let result = errno::result_of(socket::end_stream(fd).map(|()| 0), libc::EIO);
        self.done(token, result);
    }

    fn end_stream_without(&mut self, token: Token) {
        let entry = on_socket!(self, token.slot(), |target| opcode::Shutdown::new(target, libc::SHUT_WR).build());
        self.push_one(entry, token);
    }

    fn verify(&mut self, token: Token) {
        self.second_step(token);
    }

    fn cancel(&mut self, target: Token) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(target.0)).build();
        let token = Token::new(Op::Cancel, target.generation(), target.slot());
        self.push(&[entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(token.0)], false);
    }

    fn close(&mut self, slot: u32) {
        let entry = on_socket!(self, slot, |target| opcode::Close::new(target).build());
        let token = Token::new(Op::Close, 0, slot);
        self.push(&[entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(token.0)], false);
    }

    #[inline]
    fn release(&mut self, lease: u32) {
        self.leases.release(lease);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receive_brings_no_more_than_its_bound() {
        for most in [1, 2, 1000, 64 << 10] {
            for buffer in [1, 64, 999, 32 << 10, 64 << 10, 1 << 24] {
                let Bounds { once, total } = Bounds::within(most, buffer, false);
                let at_once = if once == 0 { buffer } else { once.min(buffer) };
                // Just short of its end, and then as much as it takes at once.
                assert!(total - 1 + at_once <= most, "{most} {buffer}: {once}, {total}");
                assert!(at_once >= buffer.min(most / 2).max(1) && total > most / 2, "{most} {buffer}: {once}, {total}");
            }
            assert_eq!(Bounds::within(most, 64 << 10, true), Bounds { once: 0, total: most });
        }
    }
}
