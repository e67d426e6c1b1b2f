//! UDP sockets of a server: non-blocking, close-on-exec; many datagrams a system call (recvmmsg(2), sendmmsg(2)).

use super::socket::{RawAddress, bind, set_option};
use super::{check, check_len};
use crate::transport::MESSAGE_ROOM;
use std::fmt;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Datagrams that one system call receives or sends, at most.
pub const BATCH: usize = 32;

/// A socket bound to `address`, and whether several may share its port.
///
/// `reuse_port`: every thread has a socket of its own and the kernel spreads peers over them by hash (SO_REUSEPORT).
pub fn bind_datagram(address: SocketAddr, reuse_port: bool) -> io::Result<OwnedFd> {
    let socket = datagram_socket(&address)?;
    if reuse_port {
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    bind(&socket, &RawAddress::new(&address))?;
    Ok(socket)
}

fn datagram_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket(2) touches no memory of ours.
    let fd = check(unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: socket returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks for a receive buffer of so many bytes, and says how many the kernel gave (it doubles what it grants, for its
/// own bookkeeping): beyond `net.core.rmem_max` only with CAP_NET_ADMIN (SO_RCVBUFFORCE).
pub fn enlarge_receive_buffer(socket: BorrowedFd<'_>, bytes: i32) -> io::Result<u64> {
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
    }
    let mut given: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `given` and `len` are live and writable, and `len` holds the true size.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw mut given).cast(), &mut len)
    })?;
    Ok(given.try_into().unwrap_or(0))
}

/// Datagrams that arrived for this socket and were thrown away by the kernel, nearly always for want of room in its
/// buffer (the last figure of SO_MEMINFO, Linux 4.12). It wraps at 2^32.
pub fn kernel_drops(socket: BorrowedFd<'_>) -> io::Result<u64> {
    /// SK_MEMINFO_VARS and SK_MEMINFO_DROPS of `<linux/sock_diag.h>`.
    const VARS: usize = 9;
    const DROPS: usize = 8;
    /// `<asm-generic/socket.h>`; not in libc for every target.
    const SO_MEMINFO: libc::c_int = 55;
    let mut info = [0_u32; VARS];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` and `len` are live and writable, and `len` holds the true size.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, (&raw mut info).cast(), &mut len)
    })?;
    Ok(info[DROPS].into())
}

/// Lets nothing more in: what has arrived stays to be received, what arrives later is thrown away. (A filter that
/// accepts no byte of any packet; socket(7), SO_ATTACH_FILTER.)
pub fn close_to_newcomers(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut refuse_all = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: refuse_all.as_mut_ptr() };
    // SAFETY: `program` points to one instruction; both are live for the length of the call, which copies them.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Whether a datagram, be it empty, waits to be received.
pub fn has_datagram(socket: BorrowedFd<'_>) -> bool {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: no byte is to be written.
    let peeked = check_len(unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), 0, flags) });
    !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Who sent a datagram, and where the reply goes: an address in the kernel's form.
#[derive(Clone, Copy)]
pub struct Peer {
    bytes: [u8; Self::ROOM],
    len: u8,
}

impl Peer {
    /// Room for an address: `sockaddr_in6` is the longest that a UDP socket has.
    pub const ROOM: usize = size_of::<libc::sockaddr_in6>();

    /// The kernel's form of an address, as far as it is one. `None`: it is too long.
    pub fn from_raw(raw: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::ROOM];
        bytes.get_mut(..raw.len())?.copy_from_slice(raw);
        Some(Self { bytes, len: raw.len() as u8 })
    }

    /// The address and zeros behind it, which the kernel does not mind.
    pub fn padded(&self) -> [u8; Self::ROOM] {
        self.bytes
    }

    pub fn raw(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl From<&SocketAddr> for Peer {
    fn from(address: &SocketAddr) -> Self {
        let raw = RawAddress::new(address);
        let mut peer = Self { bytes: [0; Self::ROOM], len: raw.bytes().len().min(Self::ROOM) as u8 };
        peer.bytes[..usize::from(peer.len)].copy_from_slice(&raw.bytes()[..usize::from(peer.len)]);
        peer
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({:02x?})", self.raw())
    }
}

/// Room to receive many datagrams with one system call.
#[derive(Debug)]
pub struct Incoming {
    bytes: Box<[u8]>,
    peers: [Peer; BATCH],
    lens: [(usize, bool); BATCH],
}

impl Default for Incoming {
    fn default() -> Self {
        let peers = [Peer { bytes: [0; Peer::ROOM], len: 0 }; BATCH];
        Self { bytes: vec![0; BATCH * MESSAGE_ROOM].into(), peers, lens: [(0, false); BATCH] }
    }
}

impl Incoming {
    /// Receives up to [`BATCH`] datagrams, and says how many there were. Fewer than that: no more had arrived.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: both are plain integers and pointers; all zero is a value of them.
        let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { zeroed() };
        let places = self.bytes.chunks_exact_mut(MESSAGE_ROOM).zip(&mut self.peers);
        for ((place, peer), (vector, message)) in places.zip(vectors.iter_mut().zip(&mut messages)) {
            *vector = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() };
            message.msg_hdr.msg_name = peer.bytes.as_mut_ptr().cast();
            message.msg_hdr.msg_namelen = Peer::ROOM as libc::socklen_t;
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each message names an address and one vector, which names its part of `bytes`; all of them are live,
        // writable and as long as said for the length of the call, and no two overlap.
        let received = check(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        })?;
        let received = usize::try_from(received).unwrap_or(0).min(BATCH);
        for (index, message) in messages[..received].iter().enumerate() {
            let truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            self.lens[index] = ((message.msg_len as usize).min(MESSAGE_ROOM), truncated);
            self.peers[index].len = (message.msg_hdr.msg_namelen as usize).min(Peer::ROOM) as u8;
        }
        Ok(received)
    }

    /// A datagram of those received last, who sent it, and whether it had been longer than [`MESSAGE_ROOM`].
    pub fn datagram(&self, index: usize) -> (&[u8], &Peer, bool) {
        let (len, truncated) = self.lens[index];
        (&self.bytes[index * MESSAGE_ROOM..][..len], &self.peers[index], truncated)
    }
}

/// Sends datagrams, given by where each ends in `bytes` (it begins where the one before ends, the first at `start`) and
/// to whom it goes, up to [`BATCH`] of them, and says how many the kernel took. An error is that of the first.
pub fn send_batch(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    mut start: usize,
    datagrams: &[(usize, Peer)],
) -> io::Result<usize> {
    // SAFETY: both are plain integers and pointers; all zero is a value of them.
    let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { zeroed() };
    let count = datagrams.len().min(BATCH);
    for ((end, peer), (vector, message)) in datagrams.iter().zip(vectors.iter_mut().zip(&mut messages)) {
        let datagram = &bytes[start..*end];
        start = *end;
        // The kernel reads from these only, whatever the types say.
        *vector = libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
        message.msg_hdr.msg_name = peer.bytes.as_ptr().cast_mut().cast();
        message.msg_hdr.msg_namelen = peer.len.into();
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: each of the first `count` messages names an address and one vector, which names a part of `bytes`; all
    // of them are live and as long as said for the length of the call, which writes only to `messages`.
    let sent =
        check(unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count as libc::c_uint, flags as _) })?;
    Ok(usize::try_from(sent).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::local_address;
    use std::net::UdpSocket;

    fn bound(address: &str) -> (OwnedFd, SocketAddr) {
        let socket = bind_datagram(address.parse().unwrap(), false).unwrap();
        let address = local_address(socket.as_fd()).unwrap();
        (socket, address)
    }

    fn receive(incoming: &mut Incoming, socket: &OwnedFd) -> Vec<Vec<u8>> {
        let received = incoming.receive(socket.as_fd()).unwrap_or(0);
        (0..received).map(|index| incoming.datagram(index).0.to_vec()).collect()
    }

    #[test]
    fn datagrams_come_in_batches_with_their_senders_and_go_back() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (socket, here) = bound(address);
            let peers: Vec<_> = (0..3).map(|_| UdpSocket::bind(address).unwrap()).collect();
            let mut incoming = Incoming::default();
            assert_eq!(incoming.receive(socket.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert!(!has_datagram(socket.as_fd()));
            for n in 0..BATCH + 3 {
                peers[n % 3].send_to(&vec![n as u8; n], here).unwrap();
            }
            assert!(has_datagram(socket.as_fd()));
            for (first, count) in [(0, BATCH), (BATCH, 3)] {
                assert_eq!(incoming.receive(socket.as_fd()).unwrap(), count);
                let (mut bytes, mut replies) = (b"in front".to_vec(), Vec::new());
                for index in 0..count {
                    let (datagram, peer, truncated) = incoming.datagram(index);
                    let n = first + index;
                    assert_eq!((datagram, truncated), (&vec![n as u8; n][..], false));
                    let sender = Peer::from(&peers[n % 3].local_addr().unwrap());
                    assert_eq!(peer.raw(), sender.raw());
                    assert_eq!(Peer::from_raw(peer.raw()).unwrap().raw(), peer.raw());
                    bytes.extend_from_slice(datagram);
                    replies.push((bytes.len(), *peer));
                }
                assert_eq!(send_batch(socket.as_fd(), &bytes, 8, &replies).unwrap(), count);
            }
            for n in 0..BATCH + 3 {
                let mut buffer = [0; 99];
                assert_eq!(peers[n % 3].recv(&mut buffer).unwrap(), n);
                assert_eq!(buffer[..n], vec![n as u8; n]);
            }
        }
        assert!(Peer::from_raw(&[0; Peer::ROOM + 1]).is_none());
    }

    #[test]
    fn behind_the_closed_door_is_what_had_arrived() {
        let (socket, here) = bound("127.0.0.1:0");
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(b"before", here).unwrap();
        peer.send_to(b"", here).unwrap();
        close_to_newcomers(socket.as_fd()).unwrap();
        peer.send_to(b"after", here).unwrap();
        let mut incoming = Incoming::default();
        assert_eq!(receive(&mut incoming, &socket), [&b"before"[..], b""]);
        assert!(!has_datagram(socket.as_fd()) && receive(&mut incoming, &socket).is_empty());
    }

    #[test]
    fn what_finds_no_room_is_counted_by_the_kernel() {
        let (socket, here) = bound("127.0.0.1:0");
        let given = enlarge_receive_buffer(socket.as_fd(), 4096).unwrap();
        assert!(given >= 2048, "{given}");
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(kernel_drops(socket.as_fd()).unwrap(), 0);
        (0..200).for_each(|_| _ = peer.send_to(&[0; 1000], here).unwrap());
        let mut incoming = Incoming::default();
        let received: usize = std::iter::from_fn(|| incoming.receive(socket.as_fd()).ok()).sum();
        assert!(received > 0);
        assert_eq!(received as u64 + kernel_drops(socket.as_fd()).unwrap(), 200);
    }
}
