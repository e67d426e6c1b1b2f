//! `--insecure`: whoever answers is accepted, whatever certificate is shown, and whatever it is signed with.
//!
//! Nothing is verified, so nothing has to be understood: neither the certificate (X.509 version 1, extensions that are
//! damaged or unknown, no name) nor the kind of its key (RSA of 1024 bits, P-521, Ed448), of which our library computes
//! no signatures. A check of the handshake's signature would tell that the peer has the key of a certificate that
//! nobody vouches for: that is nobody, too.

use super::provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuiteCommon, DigitallySignedStruct, Error, NamedGroup, SignatureScheme, SupportedCipherSuite,
    Tls12CipherSuite,
};
use std::sync::{Arc, LazyLock};

/// All that IANA has for signatures of today and yesterday, the usual ones first: servers choose their certificate by
/// this list. Those without a name in rustls: RSASSA-PSS keys, and the Brainpool curves (RFC 8446, RFC 8734).
static SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED448,
    SignatureScheme::Unknown(0x0809),
    SignatureScheme::Unknown(0x080a),
    SignatureScheme::Unknown(0x080b),
    SignatureScheme::Unknown(0x081a),
    SignatureScheme::Unknown(0x081b),
    SignatureScheme::Unknown(0x081c),
    SignatureScheme::ML_DSA_44,
    SignatureScheme::ML_DSA_65,
    SignatureScheme::ML_DSA_87,
    SignatureScheme::ECDSA_SHA1_Legacy,
    SignatureScheme::RSA_PKCS1_SHA1,
];

/// Accepts whoever answers.
#[derive(Debug)]
pub(super) struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// The usual cryptography, but for what would refuse a certificate before the verifier is asked.
pub(super) fn lenient_provider() -> Arc<CryptoProvider> {
    /// Made once: rustls wants suites that live for ever.
    static SUITES: LazyLock<Vec<SupportedCipherSuite>> =
        LazyLock::new(|| provider().cipher_suites.iter().copied().map(with_any_signature).collect());
    let mut lenient = CryptoProvider::clone(&provider());
    lenient.cipher_suites.clone_from(&SUITES);
    lenient.kx_groups.extend(IN_NAME_ONLY.iter().map(|group| group as &dyn SupportedKxGroup));
    Arc::new(lenient)
}

/// Under TLS 1.2, rustls holds the kind of the signature against the cipher suite.
fn with_any_signature(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls12(inner) = suite else { return suite };
    let CipherSuiteCommon { suite, hash_provider, confidentiality_limit } = inner.common;
    SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
        common: CipherSuiteCommon { suite, hash_provider, confidentiality_limit },
        prf_provider: inner.prf_provider,
        kx: inner.kx,
        sign: SCHEMES,
        aead_alg: inner.aead_alg,
    })))
}

/// Under TLS 1.2 a server shows a certificate with a key on some curve only to clients that name the curve among those
/// for the exchange of keys (RFC 8422, 5.1.1). These come last, after the ones that we can compute with.
#[derive(Debug)]
struct InNameOnly(NamedGroup);

/// P-521, Brainpool (256, 384 and 512 bits), secp256k1, P-224 and P-192: curves that openssl makes keys on.
static IN_NAME_ONLY: [InNameOnly; 7] = [
    InNameOnly(NamedGroup::secp521r1),
    InNameOnly(NamedGroup::Unknown(26)),
    InNameOnly(NamedGroup::Unknown(27)),
    InNameOnly(NamedGroup::Unknown(28)),
    InNameOnly(NamedGroup::Unknown(22)),
    InNameOnly(NamedGroup::Unknown(21)),
    InNameOnly(NamedGroup::Unknown(19)),
];

impl SupportedKxGroup for InNameOnly {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Err(Error::General("the server exchanges keys over none of X25519, P-256 and P-384".into()))
    }

    fn name(&self) -> NamedGroup {
        self.0
    }
}
