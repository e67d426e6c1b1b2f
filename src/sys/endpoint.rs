//! Where a connection leads: a TCP or UDP port, or a socket in the file system.

use super::socket::RawAddress;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// An address to listen on, or to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    /// A unix(7) stream socket; a path that begins with `@` is of the abstract namespace, which is in no file system.
    Unix(PathBuf),
}

/// The longest path of a socket (unix(7): 108 bytes with the zero behind it).
pub const UNIX_PATH_MAX: usize = 107;

impl Endpoint {
    /// A socket by its path.
    ///
    /// # Errors
    /// One line: empty, or longer than the kernel allows.
    pub fn unix(path: &Path) -> Result<Self, String> {
        let bytes = path.as_os_str().len();
        match bytes {
            0 => Err("a unix socket needs a path, as in unix:/run/server.sock".into()),
            1..=UNIX_PATH_MAX => Ok(Self::Unix(path.to_owned())),
            _ => Err(format!("a unix socket's path has at most {UNIX_PATH_MAX} bytes, and this has {bytes}")),
        }
    }

    /// The address and port; `None`: there is none.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Udp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether what goes there is messages, and no stream.
    pub fn has_messages(&self) -> bool {
        matches!(self, Self::Udp(_))
    }

    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip())
    }

    /// Whether it is certainly on this machine.
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }

    /// Whether it is in the file system, where it stays when its listener is gone.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) if !path.as_os_str().as_encoded_bytes().starts_with(b"@") => Some(path),
            _ => None,
        }
    }

    pub(super) fn raw(&self) -> io::Result<RawAddress> {
        match self {
            Self::Tcp(address) | Self::Udp(address) => Ok(RawAddress::new(address)),
            Self::Unix(path) => RawAddress::unix(path),
        }
    }

    pub(super) fn socket_type(&self) -> i32 {
        if self.has_messages() { libc::SOCK_DGRAM } else { libc::SOCK_STREAM }
    }

    /// The address family and protocol family by which its sockets are made.
    pub(super) fn family(&self) -> i32 {
        match self {
            Self::Tcp(SocketAddr::V4(_)) | Self::Udp(SocketAddr::V4(_)) => libc::AF_INET,
            Self::Tcp(SocketAddr::V6(_)) | Self::Udp(SocketAddr::V6(_)) => libc::AF_INET6,
            Self::Unix(_) => libc::AF_UNIX,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Udp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
