//! A server's side: who it is, whom it lets in.

use super::certificate::Identity;
use super::failure::unverified;
use super::{Secure, TlsError, Versions, provider};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use std::sync::Arc;

/// What a server may be told.
#[derive(Clone, Debug)]
pub struct Options {
    pub identity: Identity,
    /// Issuers, one of which has to have signed a client's certificate; none: clients need none.
    pub client_issuers: Vec<CertificateDer<'static>>,
    /// Clients get tickets (two under TLS 1.3), with which they may resume.
    pub resume: bool,
    /// Application protocols, the preferred one first; none: whatever the client asks for.
    pub alpn: Vec<Vec<u8>>,
    pub versions: Versions,
}

/// What all connections of a server have in common.
#[derive(Clone, Debug)]
pub struct Settings(Arc<ServerConfig>);

impl Settings {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// One clause, where certificate and key do not fit each other or are of no known kind.
    pub fn new(options: Options) -> Result<Self, String> {
        let explain = |error: rustls::Error| format!("TLS cannot be set up: {error}");
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(options.versions.list()).map_err(explain)?;
        let builder = if options.client_issuers.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for issuer in options.client_issuers {
                roots.add(issuer).map_err(|error| match error {
                    rustls::Error::InvalidCertificate(why) => {
                        format!("an issuer of clients cannot be used: {}", unverified(&why))
                    }
                    other => format!("an issuer of clients cannot be used: {other}"),
                })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = verifier.build().map_err(|e| format!("the issuers of clients cannot be used: {e}"))?;
            builder.with_client_cert_verifier(verifier)
        };
        let own = SingleCertAndKey::from(options.identity.certified()?);
        let mut config = builder.with_cert_resolver(Arc::new(own));
        config.alpn_protocols = options.alpn;
        // What is needed to resume travels in tickets, which cost the server no memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if options.resume {
            config.ticketer = Ticketer::new().map_err(explain)?;
        } else {
            config.send_tls13_tickets = 0;
        }
        Ok(Self(Arc::new(config)))
    }

    /// A connection that was accepted.
    ///
    /// # Errors
    /// Where the settings allow no version of TLS; those of [`Self::new`] do.
    pub fn accept(&self) -> Result<Secure, TlsError> {
        Secure::server(Arc::clone(&self.0))
    }
}
