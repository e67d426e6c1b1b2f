//! Both ends of TLS. Its keys sign with Ed25519, and every length is the same in each process: contents need not
//! replay, lengths must. (An ECDSA signature is now of 70 bytes and then of 72.)

use super::draw::one_of;
use loadgen_core::rng::Rng;
use loadgen_core::tls::certificate::{self, Identity};
use loadgen_core::tls::client::{self, Trust};
use loadgen_core::tls::{CertificateDer, Versions, server};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber};
use std::sync::OnceLock;

/// The name of everybody.
const NAME: &str = "simulated.test";

#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) client: client::Settings,
    pub(super) server: server::Settings,
}

impl Ends {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let identity = identity().clone();
        let trust = match rng.below(2) {
            0 => Trust::Anybody,
            _ => Trust::Certificates(identity.chain().to_vec()),
        };
        let versions = one_of(rng, &[Versions::Any, Versions::Any, Versions::Only12]);
        let resume = rng.below(2) == 0;
        let client =
            client::Options { server_name: NAME.into(), trust, identity: None, alpn: Vec::new(), resume, versions };
        let server = server::Options { identity, client_issuers: Vec::new(), resume, alpn: Vec::new(), versions };
        Self {
            client: client::Settings::new(client).expect("a client's settings"),
            server: server::Settings::new(server).expect("a server's settings"),
        }
    }
}

fn identity() -> &'static Identity {
    static MADE: OnceLock<Identity> = OnceLock::new();
    MADE.get_or_init(|| {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let mut parameters = CertificateParams::new([NAME.to_owned()]).expect("a name");
        // Else it is a digest of the key, and its length varies.
        parameters.serial_number = Some(SerialNumber::from(1_u64));
        let made = parameters.self_signed(&key).expect("a certificate");
        let key = certificate::to_pem(&CertificateDer::from(key.serialize_der()));
        let key = key.replace("CERTIFICATE", "PRIVATE KEY");
        Identity::from_pem(certificate::to_pem(made.der()).as_bytes(), key.as_bytes()).expect("an identity")
    })
}
