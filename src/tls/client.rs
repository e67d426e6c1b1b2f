//! A client's side: whom it trusts, who it is, and what it asks for.

use super::anybody::{self, Anybody};
use super::certificate::Identity;
use super::failure;
use super::tickets::Tickets;
use super::{Secure, TlsError, Versions, provider};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// What a client may be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name that the server's certificate has to have, and that is sent to it (unless it is an address).
    pub server_name: String,
    pub trust: Trust,
    /// Shown to servers that want to see a certificate.
    pub identity: Option<Identity>,
    /// Application protocols, the preferred one first; none: the extension is not sent.
    pub alpn: Vec<Vec<u8>>,
    /// Tickets of earlier connections are used where the server lets us.
    pub resume: bool,
    pub versions: Versions,
}

/// Whose certificates are accepted.
#[derive(Clone, Debug)]
pub enum Trust {
    /// What these have signed, and these themselves.
    Certificates(Vec<CertificateDer<'static>>),
    /// Whoever answers: nothing is verified.
    Anybody,
}

/// What the connections to one server have in common, among it the tickets to resume with.
#[derive(Clone, Debug)]
pub struct Settings {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    insecure: bool,
}

impl Settings {
    /// Checks what was asked for. Issuers that are no certificates (systems have some) are passed over.
    ///
    /// # Errors
    /// One clause: no name, nobody to be trusted, a key that does not fit.
    pub fn new(options: Options) -> Result<Self, String> {
        let name = ServerName::try_from(options.server_name.clone());
        let name = name.map_err(|_| format!("{:?} is no host name and no address", options.server_name))?;
        let insecure = matches!(options.trust, Trust::Anybody);
        let used = if insecure { anybody::lenient_provider() } else { provider() };
        let builder = ClientConfig::builder_with_provider(used);
        let explain = |error: Error| format!("TLS cannot be set up: {error}");
        let builder = builder.with_protocol_versions(options.versions.list()).map_err(explain)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier(options.trust)?);
        let mut config = match options.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified()?)))
            }
        };
        config.alpn_protocols = options.alpn;
        config.resumption =
            if options.resume { Resumption::store(Arc::new(Tickets::default())) } else { Resumption::disabled() };
        Ok(Self { config: Arc::new(config), name, insecure })
    }

    /// A connection that begins: its first words are there to be sent.
    ///
    /// # Errors
    /// Where the settings allow no version of TLS; those of [`Self::new`] do.
    pub fn connect(&self) -> Result<Secure, TlsError> {
        Secure::client(Arc::clone(&self.config), self.name.clone(), self.insecure)
    }
}

fn verifier(trust: Trust) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let Trust::Certificates(trusted) = trust else { return Ok(Arc::new(Anybody)) };
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(trusted.iter().cloned());
    if let (0, Some(first)) = (usable, trusted.first()) {
        let why = match roots.add(first.clone()) {
            Err(Error::InvalidCertificate(why)) => failure::unverified(&why),
            other => format!("{other:?}"),
        };
        return Err(format!("no certificate among those to be trusted can be used for that: of the first, {why}"));
    }
    let issued = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let issued = issued.map_err(|_| "there is no certificate to be trusted; name one with --ca FILE".to_owned())?;
    Ok(Arc::new(Issued { issued, trusted }))
}

/// What [`WebPkiServerVerifier`] accepts; and a server whose certificate is itself among those that are trusted, also
/// where it claims to be an issuer, as the self-signed ones do that `openssl req -x509` makes.
#[derive(Debug)]
struct Issued {
    issued: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Issued {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.issued.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // Its dates have been checked before; its name has not.
            Err(error) if is_issuer_as_server(&error) && self.trusted.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}

fn is_issuer_as_server(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(why)) = error else { return false };
    why.0.to_string() == failure::CA_AS_SERVER
}
