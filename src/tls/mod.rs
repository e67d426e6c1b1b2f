//! TLS under any stream protocol, by rustls. Bytes in, bytes out: [`Secure`] is one connection, of either side, and the
//! two kinds of settings that connections are made of are [`client::Settings`] and [`server::Settings`].
//!
//! Nothing here reads files or sockets. rustls itself asks the system for the time (certificates, tickets) and for
//! random bytes, and takes a buffer from the allocator for each record in each direction, which it gives back at once.

mod anybody;
pub mod certificate;
pub mod client;
mod failure;
mod secure;
pub mod server;
mod tickets;

pub use failure::{TlsError, TlsErrorKind};
pub use rustls::pki_types::{CertificateDer, ServerName};
pub use secure::Secure;

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, ring};
use std::sync::Arc;

/// Versions of TLS that may be agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.3, or 1.2 where the peer knows no better.
    #[default]
    Any,
    Only12,
    Only13,
}

impl Versions {
    fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        static ONLY_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
        static ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        match self {
            Self::Any => rustls::ALL_VERSIONS,
            Self::Only12 => ONLY_12,
            Self::Only13 => ONLY_13,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Protocol names for ALPN (RFC 7301), as in `h2,http/1.1`.
///
/// # Errors
/// One clause where a name is empty or longer than 255 bytes.
pub fn parse_alpn(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let names = text.split(',').map(|name| name.trim().as_bytes().to_vec());
    let names: Vec<_> = names.collect();
    if names.iter().all(|name| (1..=255).contains(&name.len())) {
        Ok(names)
    } else {
        Err("protocol names have 1 to 255 bytes, with commas between, as in h2,http/1.1".into())
    }
}
