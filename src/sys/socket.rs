//! Stream sockets: non-blocking, close-on-exec, TCP without Nagle's delay.

use super::endpoint::{Endpoint, UNIX_PATH_MAX};
use super::{check, check_len};
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// A listening socket, and whether several may share its port.
///
/// `reuse_port`: every thread has a listener of its own and the kernel spreads connections over them by hash
/// (SO_REUSEPORT, Linux 3.9). `backlog` is clipped to `net.core.somaxconn`.
///
/// A unix socket makes a file, which stays behind when it is closed; it has no port to share.
pub fn listen(address: impl Into<Endpoint>, reuse_port: bool, backlog: i32) -> io::Result<OwnedFd> {
    let address = address.into();
    let socket = socket_for(&address)?;
    if let Endpoint::Tcp(_) = address {
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        if reuse_port {
            set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        // Accepted sockets inherit this, which saves a system call a connection.
        set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    }
    bind(&socket, &address.raw()?)?;
    // SAFETY: listen(2) touches no memory of ours; the descriptor is owned and open.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
}

/// Takes one connection from a listener's queue.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null pointers are allowed where the peer's address is not wanted.
    let fd = check(unsafe { libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) })?;
    // SAFETY: accept4 returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a client's UDP socket is to keep of replies that it has not received yet; the kernel gives less where
/// `net.core.rmem_max` says so.
pub(super) const DATAGRAM_BUFFER: libc::c_int = 4 << 20;

/// Starts a connection to `remote`, from `source` where given, and returns without waiting for its outcome:
/// the socket becomes writable when it is known, and [`take_error`] says what it is.
///
/// A source address is bound without a port (IP_BIND_ADDRESS_NO_PORT, Linux 4.2), so that the kernel may use one
/// local port for several destinations and searches for it only once all four parts are known.
///
/// A unix socket is connected or refused at once; with EAGAIN where the listener's queue is full (unix(7)). A UDP
/// socket is always connected: it hears from `remote` only, and of errors that what it sends comes to.
pub fn connect(remote: &Endpoint, source: Option<&SocketAddr>) -> io::Result<OwnedFd> {
    let socket = socket_for(remote)?;
    match remote {
        Endpoint::Tcp(_) => set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?,
        Endpoint::Udp(_) => set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, DATAGRAM_BUFFER)?,
        Endpoint::Unix(_) => {}
    }
    if let (Some(source), Some(_)) = (source, remote.socket_addr()) {
        set_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        bind(&socket, &RawAddress::new(source))?;
    }
    let address = remote.raw()?;
    // SAFETY: `address` is an address of `len` bytes that is live for the length of the call.
    match check(unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr(), address.len()) }) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Receives into `buffer`. 0 bytes: the peer ended its stream.
#[inline]
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is live, writable and as long as said.
    check_len(unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) })
}

/// Hands bytes to the kernel and says how many it took. A dead peer gives `EPIPE`, never `SIGPIPE`.
#[inline]
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the bytes are live and as long as said.
    check_len(unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) })
}

/// Likewise on a blocking socket: takes what there is room for, and does not wait for more (MSG_DONTWAIT).
pub fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the bytes are live and as long as said.
    check_len(unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Bytes that have been received by the kernel and not yet by us (FIONREAD).
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, and `bytes` is a live, writable one for the length of the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Ends our stream; the peer's may go on (a half-close).
pub fn end_stream(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: shutdown(2) touches no memory of ours.
    check(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) })?;
    Ok(())
}

/// Bounds the kernel's send buffer (SO_SNDBUF; it takes twice as much, for its own bookkeeping, and at least some KiB).
/// Sockets accepted from a listener inherit it.
pub fn bound_send_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes.try_into().unwrap_or(i32::MAX))
}

/// Makes the coming close a reset (RST) in place of an orderly end: no TIME_WAIT stays behind.
pub fn reset_on_close(socket: BorrowedFd<'_>) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `linger` is live for the length of the call and its true size is passed.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// The outcome of a connection attempt, or the error that ended a connection (SO_ERROR; reading clears it).
pub fn take_error(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut error: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `error` and `len` are live and writable, and `len` holds the true size.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &mut len)
    })?;
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// The outcome of an attempt to connect to one of `remotes`.
///
/// Where nothing listens on a port of this machine, the kernel may choose that very port as the local one, and then the
/// socket is connected to itself: it would echo every byte. That is a refusal, and is closed so as to free the port.
pub fn connect_outcome(socket: BorrowedFd<'_>, remotes: &[SocketAddr]) -> io::Result<()> {
    take_error(socket)?;
    if remotes.is_empty() {
        return Ok(());
    }
    // A unix socket has no such address, and cannot meet itself.
    let Ok(local) = local_address(socket) else { return Ok(()) };
    if !remotes.contains(&local) || peer_address(socket)? != local {
        return Ok(());
    }
    reset_on_close(socket)?;
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nothing listens there: the socket is connected to itself"))
}

/// The address that a socket is bound to.
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    // SAFETY: sockaddr_storage is plain integers; all zero is a value of it.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` and `len` are live and writable, and `len` holds the true size.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut storage).cast(), &mut len) })?;
    from_storage(&storage)
}

/// The address that a socket is connected to.
fn peer_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    // SAFETY: sockaddr_storage is plain integers; all zero is a value of it.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` and `len` are live and writable, and `len` holds the true size.
    check(unsafe { libc::getpeername(socket.as_raw_fd(), (&raw mut storage).cast(), &mut len) })?;
    from_storage(&storage)
}

/// Limits how much the kernel buffers of what we send (`SO_SNDBUF`) or receive (`SO_RCVBUF`); it doubles the value.
pub fn set_buffers(socket: BorrowedFd<'_>, send: Option<i32>, receive: Option<i32>) -> io::Result<()> {
    if let Some(bytes) = send {
        set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)?;
    }
    if let Some(bytes) = receive {
        set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
    }
    Ok(())
}

fn socket_for(address: &Endpoint) -> io::Result<OwnedFd> {
    let (domain, kind) = (address.family(), address.socket_type());
    // SAFETY: socket(2) touches no memory of ours.
    let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: socket returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn bind(socket: &OwnedFd, address: &RawAddress) -> io::Result<()> {
    // SAFETY: `address` is an address of `len` bytes that is live for the length of the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.len()) })?;
    Ok(())
}

pub(super) fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` is live for the length of the call and its true size is passed.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// An address in the kernel's form.
pub(super) struct RawAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddress {
    pub(super) fn new(address: &SocketAddr) -> Self {
        let (storage, len) = to_storage(address);
        Self { storage, len }
    }

    /// That of a unix socket; a leading `@` stands for the zero byte of the abstract namespace.
    pub(super) fn unix(path: &Path) -> io::Result<Self> {
        let bytes = path.as_os_str().as_encoded_bytes();
        if bytes.is_empty() || bytes.len() > UNIX_PATH_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path of a unix socket has 1 to 107 bytes"));
        }
        let is_abstract = bytes[0] == b'@';
        // SAFETY: sockaddr_un is plain integers; all zero is a value of it.
        let mut raw: libc::sockaddr_un = unsafe { zeroed() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        if is_abstract {
            raw.sun_path[0] = 0;
        }
        // SAFETY: as above.
        let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
        // SAFETY: sockaddr_storage is at least as large and as aligned as every socket address.
        unsafe { (&raw mut storage).cast::<libc::sockaddr_un>().write(raw) };
        // A name in the abstract namespace ends with the length, one in the file system with a zero.
        let len = std::mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + usize::from(!is_abstract);
        Ok(Self { storage, len: len as libc::socklen_t })
    }

    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(super) fn len(&self) -> libc::socklen_t {
        self.len
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes at the beginning of the storage, which is longer, were written as an address; all of the
        // rest was zeroed, padding within the address's type included.
        unsafe { std::slice::from_raw_parts((&raw const self.storage).cast(), self.len as usize) }
    }
}

impl std::fmt::Debug for RawAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "family {}, {} bytes", self.storage.ss_family, self.len)
    }
}

fn to_storage(address: &SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: sockaddr_storage is plain integers; all zero is a value of it.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let len = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is at least as large and as aligned as every socket address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as libc::socklen_t)
}

fn from_storage(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in; the storage is large and aligned enough.
            let raw = unsafe { (&raw const *storage).cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: likewise, a sockaddr_in6.
            let raw = unsafe { (&raw const *storage).cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Ok(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        family => Err(io::Error::other(format!("address family {family} is neither IPv4 nor IPv6"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(address: &str) {
        let address: SocketAddr = address.parse().unwrap();
        let (storage, _) = to_storage(&address);
        assert_eq!(from_storage(&storage).unwrap(), address);
    }

    #[test]
    fn addresses_survive_the_trip_to_the_kernel_s_form() {
        round_trip("127.0.0.1:80");
        round_trip("[fe80::1]:65535");
    }

    #[test]
    fn a_refused_connection_says_so() {
        let nobody = {
            let listener = listen("127.0.0.1:0".parse::<SocketAddr>().unwrap(), false, 1).unwrap();
            local_address(listener.as_fd()).unwrap()
        };
        let outcome = connect(&nobody.into(), None).and_then(|socket| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            take_error(socket.as_fd())
        });
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_socket_that_is_connected_to_itself_is_refused() {
        let free = {
            let listener = listen("127.0.0.1:0".parse::<SocketAddr>().unwrap(), false, 1).unwrap();
            local_address(listener.as_fd()).unwrap()
        };
        let socket = connect(&free.into(), Some(&free)).unwrap();
        assert_eq!(local_address(socket.as_fd()).unwrap(), free);
        assert!(send(socket.as_fd(), b"hello").is_ok(), "the kernel does it");
        assert_eq!(connect_outcome(socket.as_fd(), &[free]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_source_address_is_used() {
        let listener = listen("127.0.0.1:0".parse::<SocketAddr>().unwrap(), false, 1).unwrap();
        let target = local_address(listener.as_fd()).unwrap();
        let source: SocketAddr = "127.0.0.77:0".parse().unwrap();
        let socket = connect(&target.into(), Some(&source)).unwrap();
        assert_eq!(local_address(socket.as_fd()).unwrap().ip(), source.ip());
    }

    #[test]
    fn unix_sockets_in_the_file_system_and_outside_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("@loadgen-test-{}", std::process::id());
        for path in [folder.path().join("s"), name.into()] {
            let endpoint = Endpoint::unix(&path).unwrap();
            let listener = listen(endpoint.clone(), false, 1).unwrap();
            let ours = connect(&endpoint, None).unwrap();
            connect_outcome(ours.as_fd(), &[]).unwrap();
            let theirs = accept(listener.as_fd()).unwrap();
            assert_eq!(send(ours.as_fd(), b"hello").unwrap(), 5);
            let mut buffer = [0; 8];
            assert_eq!(receive(theirs.as_fd(), &mut buffer).unwrap(), 5);
            assert_eq!(endpoint.file().is_some(), path.exists());
        }
        assert!(Endpoint::unix(Path::new(&"x".repeat(108))).unwrap_err().contains("107"));
        assert!(connect(&Endpoint::unix(&folder.path().join("nobody")).unwrap(), None).is_err());
    }
}
