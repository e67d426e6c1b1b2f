//! TLS, the client half against the server half, in memory: every cut, every way to fail, resumption, and what a
//! connection costs.

use loadgen_core::tls::certificate::{self, Identity};
use loadgen_core::tls::client::{self, Trust};
use loadgen_core::tls::server;
use loadgen_core::tls::{CertificateDer, Secure, TlsError, TlsErrorKind, Versions, parse_alpn};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

/// An issuer, and what it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    fn issue(&self, name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([name.to_owned()]).unwrap();
        adjust(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Identity::from_pem(certificate::to_pem(certificate.der()).as_bytes(), &key_pem(&key)).unwrap()
    }

    fn trusted(&self) -> Trust {
        Trust::Certificates(vec![self.certificate.clone()])
    }
}

fn key_pem(key: &KeyPair) -> Vec<u8> {
    let der = CertificateDer::from(key.serialize_der());
    certificate::to_pem(&der).replace("CERTIFICATE", "PRIVATE KEY").into_bytes()
}

fn client_options(trust: Trust) -> client::Options {
    client::Options {
        server_name: "localhost".into(),
        trust,
        identity: None,
        alpn: Vec::new(),
        resume: true,
        versions: Versions::Any,
    }
}

fn server_options(identity: Identity) -> server::Options {
    server::Options { identity, client_issuers: Vec::new(), resume: true, alpn: Vec::new(), versions: Versions::Any }
}

fn local() -> Identity {
    Identity::self_signed(&["localhost".into(), "127.0.0.1".into(), "::1".into()]).unwrap()
}

/// Settings of both sides that fit each other.
fn both() -> (client::Options, server::Options) {
    let identity = local();
    let trust = Trust::Certificates(identity.chain().to_vec());
    (client_options(trust), server_options(identity))
}

fn pair(client: &client::Options, server: &server::Options) -> (Secure, Secure) {
    let client = client::Settings::new(client.clone()).unwrap().connect().unwrap();
    (client, server::Settings::new(server.clone()).unwrap().accept().unwrap())
}

/// Carries what one side says to the other, `cut` bytes at a time, until both are silent. What each said to the other's
/// application is appended.
fn talk(
    client: &mut Secure,
    server: &mut Secure,
    cut: usize,
    heard: &mut [Vec<u8>; 2],
) -> (Result<(), TlsError>, Result<(), TlsError>) {
    let mut results = (Ok(()), Ok(()));
    let mut wire = Vec::new();
    while client.has_output() || server.has_output() {
        client.take_output(&mut wire);
        let [by_client, by_server] = heard;
        deliver(&mut wire, server, cut, by_server, &mut results.1);
        server.take_output(&mut wire);
        deliver(&mut wire, client, cut, by_client, &mut results.0);
    }
    results
}

fn deliver(wire: &mut Vec<u8>, to: &mut Secure, cut: usize, heard: &mut Vec<u8>, result: &mut Result<(), TlsError>) {
    for piece in wire.chunks_mut(cut) {
        if result.is_ok() {
            *result = to.received(piece, heard);
        }
    }
    wire.clear();
}

fn shake(client: &mut Secure, server: &mut Secure) -> (Result<(), TlsError>, Result<(), TlsError>) {
    talk(client, server, usize::MAX >> 1, &mut [Vec::new(), Vec::new()])
}

#[test]
fn bytes_arrive_exactly_whatever_the_cuts() {
    let (client, server) = both();
    for versions in [Versions::Only12, Versions::Only13] {
        let client = client::Options { versions, ..client.clone() };
        for cut in [1, 2, 3, 5, 7, 64, 1000, 16_500, 1 << 20] {
            let (mut a, mut b) = pair(&client, &server);
            let mut heard = [Vec::new(), Vec::new()];
            assert_eq!(talk(&mut a, &mut b, cut, &mut heard), (Ok(()), Ok(())), "{versions:?}, {cut}");
            assert!(!a.is_handshaking() && !b.is_handshaking());
            let question: Vec<u8> = (0..40_000u32).map(|i| ((i * i) >> 3) as u8).collect();
            let answer: Vec<u8> = (0..70_000u32).map(|i| (i * 7) as u8).collect();
            let mut wire = Vec::new();
            a.encrypt(&question, &mut wire).unwrap();
            a.encrypt(&[], &mut wire).unwrap();
            a.encrypt(b"end", &mut wire).unwrap();
            deliver(&mut wire, &mut b, cut, &mut heard[1], &mut Ok(()));
            b.encrypt(&answer, &mut wire).unwrap();
            b.close();
            b.close();
            b.take_output(&mut wire);
            deliver(&mut wire, &mut a, cut, &mut heard[0], &mut Ok(()));
            assert_eq!((heard[1].len(), &heard[1][40_000..]), (40_003, &b"end"[..]), "{versions:?}, {cut}");
            assert!(heard[1].starts_with(&question) && heard[0] == answer, "{versions:?}, {cut}");
            assert!(a.peer_closed() && !b.peer_closed(), "{versions:?}, {cut}");
            // One half-closed stream still carries the other direction.
            a.encrypt(b"yes?", &mut wire).unwrap();
            deliver(&mut wire, &mut b, cut, &mut heard[1], &mut Ok(()));
            assert!(heard[1].ends_with(b"yes?"));
        }
    }
}

#[test]
fn what_was_agreed_on_has_words() {
    let (client, server) = both();
    let h1 = parse_alpn("http/1.1").unwrap();
    let client = client::Options { alpn: parse_alpn("h2, http/1.1").unwrap(), ..client };
    let server = server::Options { alpn: h1, ..server };
    for (versions, word) in [(Versions::Only12, "1.2"), (Versions::Only13, "1.3"), (Versions::Any, "1.3")] {
        let (mut a, mut b) = pair(&client::Options { versions, ..client.clone() }, &server);
        assert_eq!(a.negotiated(), None);
        assert_eq!(shake(&mut a, &mut b), (Ok(()), Ok(())));
        let agreed = a.negotiated().unwrap();
        assert_eq!(a.negotiated(), b.negotiated());
        assert_eq!((agreed.version, agreed.alpn.as_deref(), agreed.resumed), (word, Some("http/1.1"), false));
        assert!(agreed.cipher.starts_with("TLS") && agreed.cipher.contains("GCM"), "{}", agreed.cipher);
    }
    assert!(parse_alpn("").is_err() && parse_alpn("h2,,x").is_err() && parse_alpn(&"x".repeat(256)).is_err());
}

#[test]
fn sessions_are_resumed_where_both_sides_want_it() {
    for versions in [Versions::Only12, Versions::Only13] {
        for (ours, theirs) in [(true, true), (true, false), (false, true)] {
            let (client, server) = both();
            let client = client::Settings::new(client::Options { resume: ours, versions, ..client }).unwrap();
            let server = server::Settings::new(server::Options { resume: theirs, ..server }).unwrap();
            let resumed = (0..5).map(|_| {
                let (mut a, mut b) = (client.connect().unwrap(), server.accept().unwrap());
                assert_eq!(shake(&mut a, &mut b), (Ok(()), Ok(())));
                assert_eq!(a.negotiated(), b.negotiated());
                a.negotiated().unwrap().resumed
            });
            let expected = if ours && theirs { vec![false, true, true, true, true] } else { vec![false; 5] };
            assert_eq!(resumed.collect::<Vec<_>>(), expected, "{versions:?}, {ours}, {theirs}");
        }
    }
}

#[test]
fn many_connections_that_start_together_may_all_resume() {
    let (client, server) = both();
    let (client, server) = (client::Settings::new(client).unwrap(), server::Settings::new(server).unwrap());
    for round in 0..3 {
        let mut pairs: Vec<_> = (0..100).map(|_| (client.connect().unwrap(), server.accept().unwrap())).collect();
        let count = pairs.iter_mut().filter_map(|(a, b)| {
            assert_eq!(shake(a, b), (Ok(()), Ok(())));
            a.negotiated().unwrap().resumed.then_some(())
        });
        assert_eq!(count.count(), if round == 0 { 0 } else { 100 });
    }
}

/// How a client fails whose trust and name are these, against a server of that identity.
fn failure(client: client::Options, identity: Identity) -> TlsError {
    let (mut a, mut b) = pair(&client, &server_options(identity));
    let (ours, theirs) = shake(&mut a, &mut b);
    let error = ours.unwrap_err();
    assert_eq!(theirs.unwrap_err().kind, TlsErrorKind::Alert, "the server is told why");
    assert_eq!(error.kind, TlsErrorKind::Certificate);
    assert!(!error.detail.contains('\n'));
    error
}

#[test]
fn a_certificate_that_is_not_accepted_says_what_to_do() {
    let ca = Authority::new("ca");
    let good = ca.issue("localhost", |_| ());
    let (mut a, mut b) = pair(&client_options(ca.trusted()), &server_options(good.clone()));
    assert_eq!(shake(&mut a, &mut b), (Ok(()), Ok(())));

    // The second has the name of the issuer, and not its key.
    for other in [Authority::new("another"), Authority::new("ca")] {
        let error = failure(client_options(other.trusted()), good.clone());
        assert!(error.detail.contains("--ca FILE") && error.detail.contains("--insecure"), "{error}");
    }

    let other = client::Options { server_name: "example.org".into(), ..client_options(ca.trusted()) };
    let error = failure(other, good.clone());
    assert!(error.detail.contains("is for localhost, not for example.org"), "{error}");
    assert!(error.detail.contains("--server-name"), "{error}");

    let expired = ca.issue("localhost", |parameters| {
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    let error = failure(client_options(ca.trusted()), expired.clone());
    assert!(error.detail.contains("expired") && error.detail.contains(" days ago"), "{error}");

    let early = ca.issue("localhost", |parameters| parameters.not_before = date_time_ymd(3000, 1, 1));
    let error = failure(client_options(ca.trusted()), early);
    assert!(error.detail.contains("not valid yet"), "{error}");

    let anybody = client::Options { server_name: "example.org".into(), ..client_options(Trust::Anybody) };
    let (mut a, mut b) = pair(&anybody, &server_options(expired));
    assert_eq!(shake(&mut a, &mut b), (Ok(()), Ok(())));
}

/// `openssl req -x509` makes certificates that claim to be issuers; who trusts one of them means the server.
#[test]
fn a_self_signed_issuer_that_is_trusted_may_be_the_server() {
    let make = |name: &str, until: i32| {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([name.to_owned()]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.not_after = date_time_ymd(until, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        Identity::from_pem(certificate::to_pem(certificate.der()).as_bytes(), &key_pem(&key)).unwrap()
    };
    let trusting = |identity: &Identity| client_options(Trust::Certificates(identity.chain().to_vec()));
    let good = make("localhost", 3000);
    let (mut a, mut b) = pair(&trusting(&good), &server_options(good.clone()));
    assert_eq!(shake(&mut a, &mut b), (Ok(()), Ok(())));

    let elsewhere = make("example.org", 3000);
    assert!(failure(trusting(&elsewhere), elsewhere.clone()).detail.contains("--server-name"));
    let expired = make("localhost", 2021);
    assert!(failure(trusting(&expired), expired.clone()).detail.contains("expired"));
    failure(trusting(&good), make("localhost", 3000));
}

#[test]
fn addresses_are_names_too() {
    let identity = local();
    for name in ["127.0.0.1", "::1"] {
        let trust = Trust::Certificates(identity.chain().to_vec());
        let client = client::Options { server_name: name.into(), ..client_options(trust) };
        let (mut a, mut b) = pair(&client, &server_options(identity.clone()));
        assert_eq!(shake(&mut a, &mut b), (Ok(()), Ok(())), "{name}");
    }
    let nameless = client::Options { server_name: "not a name".into(), ..client_options(Trust::Anybody) };
    assert!(client::Settings::new(nameless).unwrap_err().contains("\"not a name\" is no host name"));
    let nobody = client_options(Trust::Certificates(Vec::new()));
    assert!(client::Settings::new(nobody).unwrap_err().contains("--ca FILE"));
}

#[test]
fn clients_may_have_to_show_a_certificate() {
    let (ca, (client, server)) = (Authority::new("ca"), both());
    let server = server::Options { client_issuers: vec![ca.certificate.clone()], ..server };
    for versions in [Versions::Only12, Versions::Only13] {
        let client = client::Options { versions, ..client.clone() };
        let known = client::Options { identity: Some(ca.issue("me", |_| ())), ..client.clone() };
        let (mut a, mut b) = pair(&known, &server);
        assert_eq!(shake(&mut a, &mut b), (Ok(()), Ok(())), "{versions:?}");

        let (mut a, mut b) = pair(&client, &server);
        let (ours, theirs) = shake(&mut a, &mut b);
        assert_eq!(theirs.unwrap_err().kind, TlsErrorKind::Certificate);
        let ours = ours.unwrap_err();
        assert_eq!(ours.kind, TlsErrorKind::Alert);
        assert!(ours.detail.contains("--tls-cert"), "{ours}");

        let stranger =
            client::Options { identity: Some(Authority::new("another").issue("me", |_| ())), ..client.clone() };
        let (mut a, mut b) = pair(&stranger, &server);
        let (ours, theirs) = shake(&mut a, &mut b);
        assert_eq!(theirs.unwrap_err().kind, TlsErrorKind::Certificate);
        assert!(ours.unwrap_err().detail.contains("does not accept our certificate"));
    }
}

#[test]
fn sides_with_nothing_in_common_say_so() {
    let (client, server) = both();
    let ours = client::Options { alpn: parse_alpn("h2").unwrap(), ..client.clone() };
    let theirs = server::Options { alpn: parse_alpn("http/1.1").unwrap(), ..server.clone() };
    let (mut a, mut b) = pair(&ours, &theirs);
    let (ours, theirs) = shake(&mut a, &mut b);
    assert_eq!(theirs.unwrap_err().kind, TlsErrorKind::Incompatible);
    assert!(ours.unwrap_err().detail.contains("--alpn"));

    let ours = client::Options { versions: Versions::Only12, ..client };
    let theirs = server::Options { versions: Versions::Only13, ..server };
    let (mut a, mut b) = pair(&ours, &theirs);
    let (ours, theirs) = shake(&mut a, &mut b);
    assert_eq!(theirs.unwrap_err().kind, TlsErrorKind::Incompatible);
    assert_eq!(ours.unwrap_err().kind, TlsErrorKind::Alert);
}

#[test]
fn what_is_no_tls_is_refused() {
    let (client, server) = both();
    for (bytes, cut) in [("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1), ("HTTP/1.1 400 Bad Request\r\n", 100)] {
        for server_side in [false, true] {
            let (mut a, mut b) = pair(&client, &server);
            let side = if server_side { &mut b } else { &mut a };
            let mut result = Ok(());
            deliver(&mut bytes.as_bytes().to_vec(), side, cut, &mut Vec::new(), &mut result);
            let error = result.unwrap_err();
            assert_eq!(error.kind, TlsErrorKind::Protocol, "{error}");
            assert!(error.detail.contains("no TLS"), "{error}");
            // It is deaf from here on.
            assert_eq!(side.received(&mut [0; 100], &mut Vec::new()), Ok(()));
        }
    }
}

/// A byte that was changed under way is noticed, wherever it is, and never comes out as something else.
#[test]
fn changed_bytes_are_noticed() {
    let (client, server) = both();
    let (mut a, mut b) = pair(&client, &server);
    assert_eq!(shake(&mut a, &mut b), (Ok(()), Ok(())));
    let mut wire = Vec::new();
    a.encrypt(b"attack at dawn", &mut wire).unwrap();
    *wire.last_mut().unwrap() ^= 1;
    let mut heard = Vec::new();
    assert_eq!(b.received(&mut wire, &mut heard).unwrap_err().kind, TlsErrorKind::Protocol);
    assert!(heard.is_empty());
    b.take_output(&mut wire);
    assert!(!wire.is_empty(), "an alert says so");
}

#[test]
fn within_the_handshake_nothing_is_sent_and_nothing_is_closed() {
    let (client, server) = both();
    let (mut a, mut b) = pair(&client, &server);
    let mut wire = Vec::new();
    a.take_output(&mut wire);
    assert!(a.encrypt(b"early", &mut wire).is_err() && b.encrypt(b"early", &mut Vec::new()).is_err());
    a.close();
    assert!(!a.has_output() && a.is_handshaking());
    assert!(!wire.windows(5).any(|window| window == b"early"));
}

#[test]
fn pem_files_are_read_or_refused() {
    let identity = local();
    let pem = certificate::to_pem(&identity.chain()[0]);
    assert_eq!(certificate::certificates(format!("{pem}\n{pem}").as_bytes()).unwrap().len(), 2);
    assert!(certificate::certificates(b"").unwrap_err().contains("BEGIN CERTIFICATE"));
    assert!(certificate::certificates(pem.replace("MII", "@@@").as_bytes()).unwrap_err().contains("damaged"));
    assert!(Identity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap_err().contains("PRIVATE KEY"));
    let stranger = Identity::from_pem(pem.as_bytes(), &key_pem(&KeyPair::generate().unwrap())).unwrap();
    assert!(server::Settings::new(server_options(stranger)).unwrap_err().contains("certificate and key"));
}
