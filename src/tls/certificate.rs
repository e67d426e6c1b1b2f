//! Certificates: out of PEM files' content, and made on the spot.

use super::failure::unverified;
use super::provider;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

/// A certificate with those between it and its issuer, and its key: who one is.
#[derive(Debug)]
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// Reads what PEM files contain.
    ///
    /// # Errors
    /// One clause that says which of the two is wrong, and why.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => "the key file has no unencrypted private key (BEGIN PRIVATE KEY)".into(),
            other => format!("the key file is damaged: {other}"),
        })?;
        Ok(Self { chain: certificates(chain)?, key })
    }

    /// Makes a certificate for these names and addresses, signed with its own key.
    ///
    /// # Errors
    /// One clause, where a name cannot stand in a certificate.
    pub fn self_signed(names: &[String]) -> Result<Self, String> {
        let explain = |error: rcgen::Error| format!("cannot make a certificate: {error}");
        let key = KeyPair::generate().map_err(explain)?;
        let mut parameters = CertificateParams::new(names.to_vec()).map_err(explain)?;
        parameters.distinguished_name = DistinguishedName::new();
        // What openssl and curl show as its subject.
        parameters.distinguished_name.push(DnType::CommonName, "loadgen-server, self-signed");
        let certificate = parameters.self_signed(&key).map_err(explain)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Self { chain: vec![certificate.der().clone()], key })
    }

    /// Certificate and key, held against each other.
    ///
    /// # Errors
    /// One clause that says what of them cannot be used, and what could be.
    pub(super) fn certified(self) -> Result<CertifiedKey, String> {
        let key = provider().key_provider.load_private_key(self.key);
        // Whatever rustls says here, it means the kind or the size.
        let key = key.map_err(|_| {
            "the private key cannot be used: keys are RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519"
        })?;
        let certified = CertifiedKey::new(self.chain, key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(Error::InconsistentKeys(_)) => {
                Err("certificate and key cannot be used: the private key is not that of the certificate".to_owned())
            }
            Err(error) => Err(format!(
                "the certificate cannot be used ({}): it has to be a whole one, of X.509 version 3 (openssl makes \
                 those where an extension is asked for, such as -addext)",
                match error {
                    Error::InvalidCertificate(why) => unverified(&why),
                    other => other.to_string(),
                }
            )),
        }
    }

    /// The certificates, the own one first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

/// The certificates in a PEM file's content, in order; at least one.
///
/// # Errors
/// One clause.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("the file has no certificate (BEGIN CERTIFICATE)".into()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("the certificate file is damaged: {error}")),
    }
}

/// As a PEM file.
pub fn to_pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for start in (0..text.len()).step_by(64) {
        pem.push_str(&text[start..text.len().min(start + 64)]);
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}
