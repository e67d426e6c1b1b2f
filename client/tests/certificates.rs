//! Certificates as they are found in the field: of old versions, with keys that our library computes no signatures of,
//! damaged, without a name. `--insecure` takes them all; without it, each is refused with a reason and a way out.

mod common;

use common::nginx::Process;
use common::{Ended, SHORT, Server, brief, clean, eventually, have, loadgen_at, scratch, whole};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use tempfile::TempDir;

const NAMES: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
const P256: &str = "EC -pkeyopt ec_paramgen_curve:P-256";
const ALL: &[&str] = &["tls1_2", "tls1_3"];

/// A certificate, signed with its own key.
struct Kind {
    name: &'static str,
    /// `-algorithm` of the key, with options.
    key: &'static str,
    /// Of the signature; empty: the key's own.
    digest: &'static str,
    days: &'static str,
    /// Empty: none, and X.509 version 1.
    extensions: &'static str,
    /// In which versions openssl itself shows it.
    versions: &'static [&'static str],
    /// What is said of it without --insecure, where it is the one that is trusted; empty: it is fine.
    refused: &'static str,
}

const USUAL: Kind =
    Kind { name: "usual", key: P256, digest: "-sha256", days: "10", extensions: NAMES, versions: ALL, refused: "" };

const KINDS: &[Kind] = &[
    USUAL,
    Kind { name: "v1", extensions: "", refused: "it is of X.509 version 1 or 2", ..USUAL },
    Kind { name: "rsa1024", key: "RSA -pkeyopt rsa_keygen_bits:1024", refused: "RSA of less than 2048 bits", ..USUAL },
    Kind { name: "sha1", key: "RSA", digest: "-sha1", refused: "signed with what is not accepted", ..USUAL },
    Kind { name: "md5", key: "RSA", digest: "-md5", refused: "signed with what is not accepted", ..USUAL },
    Kind { name: "p521", key: "EC -pkeyopt ec_paramgen_curve:P-521", refused: "P-521", ..USUAL },
    Kind { name: "ed25519", key: "ED25519", digest: "", ..USUAL },
    Kind { name: "ed448", key: "ED448", digest: "", refused: "Ed448", ..USUAL },
    Kind { name: "pss", key: "RSA-PSS", versions: &["tls1_3"], refused: "--insecure takes any", ..USUAL },
    Kind {
        name: "brainpool",
        key: "EC -pkeyopt ec_paramgen_curve:brainpoolP256r1",
        versions: &["tls1_2"],
        refused: "--insecure takes any",
        ..USUAL
    },
    Kind { name: "expired", days: "-1", refused: "expired", ..USUAL },
    Kind { name: "named", extensions: "subjectAltName=DNS:example.org\n", refused: "is for example.org, not", ..USUAL },
    Kind { name: "nameless", extensions: "basicConstraints=CA:FALSE\n", refused: "names no host", ..USUAL },
    Kind {
        name: "critical",
        extensions: "subjectAltName=IP:127.0.0.1\n1.2.3.4=critical,ASN1:UTF8String:x\n",
        refused: "critical extension that is not known",
        ..USUAL
    },
    Kind {
        name: "damaged",
        extensions: "subjectAltName=DER:00:01:02\n",
        versions: &["tls1_3"],
        refused: "can be used for that: of the first, it is damaged",
        ..USUAL
    },
    Kind {
        name: "twice",
        extensions: "subjectAltName=IP:127.0.0.1\n2.5.29.17=DER:30:0b:82:09:6c:6f:63:61:6c:68:6f:73:74\n",
        refused: "is for localhost, not for 127.0.0.1",
        ..USUAL
    },
];

/// A folder with NAME.pem and NAME.key of each kind that openssl makes here.
struct Made(TempDir);

impl Made {
    fn new() -> Option<Self> {
        have("openssl").then(|| Self(scratch()))
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).to_str().unwrap().to_owned()
    }

    fn openssl(&self, words: &str) -> bool {
        let words = words.split_whitespace();
        let out =
            common::command("openssl").args(words).current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap();
        out.status.success()
    }

    /// Whether openssl can make it.
    fn make(&self, kind: &Kind) -> bool {
        let Kind { name, key, digest, days, extensions, .. } = kind;
        std::fs::write(self.path(&format!("{name}.ext")), extensions).unwrap();
        let extended = if extensions.is_empty() { String::new() } else { format!("-extfile {name}.ext") };
        let made = self.openssl(&format!("genpkey -algorithm {key} -out {name}.key"))
            && self.openssl(&format!("req -new -key {name}.key -subj /CN=loadgen -out {name}.csr"))
            && self.openssl(&format!(
                "x509 -req -in {name}.csr -key {name}.key -days {days} {digest} {extended} -out {name}.pem"
            ));
        if !made {
            eprintln!("skipped: this openssl makes no certificate of the kind {name}");
        }
        made
    }
}

/// `openssl s_server`, which answers one HTTP request a connection.
struct Openssl {
    child: Child,
    address: SocketAddr,
}

impl Openssl {
    /// `None`: this openssl does not show such a certificate.
    fn start(made: &Made, kind: &str, version: &str, more: &str) -> Option<Self> {
        for _ in 0..5 {
            // Until openssl binds it, somebody else may.
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut command = common::command("openssl");
            command.args(["s_server", "-www", "-quiet", "-accept", &address.to_string(), &format!("-{version}")]);
            command.args(["-cert", &made.path(&format!("{kind}.pem")), "-key", &made.path(&format!("{kind}.key"))]);
            command.args(["-cipher", "ALL:@SECLEVEL=0"]).args(more.split_whitespace());
            let output = || std::fs::File::create(made.path("s_server.log")).unwrap();
            command.stdin(Stdio::null()).stdout(output()).stderr(output());
            let mut server = Self { child: command.spawn().unwrap(), address };
            let mut over = false;
            eventually("openssl listens, or ends", || {
                over = server.child.try_wait().unwrap().is_some();
                over || TcpStream::connect(address).is_ok()
            });
            if !over {
                return Some(server);
            }
        }
        eprintln!("skipped: this openssl shows no {kind} under {version}");
        None
    }

    fn ask(&self, args: &[&str]) -> Ended {
        let usual = ["-n", "2", "-c", "1", "--no-floor", "--timeout", "20s"];
        loadgen_at(&format!("https://{}/", self.address), &[args, &usual[..]].concat())
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn answered(ended: &Ended, what: &str) {
    assert!(ended.code < 5, "{what}: {}", ended.stderr);
    let report = ended.report();
    assert!(whole(report).ok == 2 && whole(report).errors.is_empty(), "{what}: {} {}", brief(report), ended.stderr);
}

/// The one line that says why it came to nothing.
fn error(ended: &Ended) -> &str {
    assert_ne!(ended.code, 0, "{}", ended.stderr);
    ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{}", ended.stderr))
}

#[test]
fn insecure_takes_any_certificate_and_without_it_each_is_refused_by_its_name() {
    let Some(made) = Made::new() else { return };
    for kind in KINDS.iter().filter(|kind| made.make(kind)) {
        for version in kind.versions {
            let Some(server) = Openssl::start(&made, kind.name, version, "") else { continue };
            let what = format!("{} under {version}", kind.name);
            answered(&server.ask(&["--insecure"]), &what);
            let verified = server.ask(&["--ca", &made.path(&format!("{}.pem", kind.name))]);
            if kind.refused.is_empty() {
                answered(&verified, &what);
                continue;
            }
            let why = error(&verified);
            assert!(why.contains(kind.refused) && why.len() < 400, "{what}: {why}");
            // The way out that was just shown to work; a file that cannot be used is the user's to replace.
            assert!(why.contains("--insecure") || verified.code == 2, "{what}: {why}");
        }
    }
}

/// What `openssl req -x509` makes: the certificate of an issuer, which is its own.
#[test]
fn a_certificate_of_an_issuer_is_taken_where_it_is_named_and_else_said_to_be_one() {
    let Some(made) = Made::new() else { return };
    let issuer =
        Kind { name: "issuer", extensions: "basicConstraints=CA:TRUE\nsubjectAltName=IP:127.0.0.1\n", ..USUAL };
    assert!(made.make(&issuer) && made.make(&USUAL));
    let server = Openssl::start(&made, "issuer", "tls1_3", "").expect("it can show that");
    answered(&server.ask(&["--ca", &made.path("issuer.pem")]), "issuer");
    let other = server.ask(&["--ca", &made.path("usual.pem")]);
    let why = error(&other);
    assert!(why.contains("CA:TRUE") && why.contains("--ca FILE") && why.contains("--insecure"), "{why}");
}

#[test]
fn insecure_takes_a_chain_in_any_order_and_says_nothing_of_itself_where_it_cannot_help() {
    let Some(made) = Made::new() else { return };
    let others = [&USUAL, &Kind { name: "other", ..USUAL }, &Kind { name: "v1", extensions: "", ..USUAL }];
    assert!(others.iter().all(|kind| made.make(kind)));
    let chain = ["other.pem", "v1.pem", "usual.pem", "other.pem"].map(|file| made.path(file));
    let chain: String = chain.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    std::fs::write(made.path("chain.pem"), chain).unwrap();
    for version in ALL {
        let more = format!("-cert_chain {}", made.path("chain.pem"));
        let Some(server) = Openssl::start(&made, "usual", version, &more) else { continue };
        answered(&server.ask(&["--insecure"]), version);
        // A server that wants ours: no verifying of its own certificate helps with that.
        let strict = Openssl::start(&made, "usual", version, "-Verify 1").expect("it can ask for one");
        let asked = strict.ask(&["--insecure"]);
        assert!(whole(asked.report()).ok == 0 && asked.code != 0, "{}", brief(asked.report()));
        assert!(!asked.stderr.contains("--insecure takes"), "{}", asked.stderr);
        assert!(!asked.stderr.contains("verify nothing with"), "{}", asked.stderr);
        let [certificate, key] = [made.path("other.pem"), made.path("other.key")];
        answered(&strict.ask(&["--insecure", "--tls-cert", &certificate, "--tls-key", &key]), version);
    }
}

#[test]
fn nginx_with_certificates_of_every_kind() {
    let Some(made) = Made::new().filter(|_| have("nginx")) else { return };
    for kind in KINDS.iter().filter(|kind| ["v1", "rsa1024", "p521", "ed448", "sha1", "nameless"].contains(&kind.name))
    {
        if !made.make(kind) {
            continue;
        }
        for (version, shown) in [("TLSv1.2", "1.2"), ("TLSv1.3", "1.3")] {
            let root = made.0.path();
            let nginx = Process::start(root, "$status", |address| {
                let (root, name) = (root.display(), kind.name);
                format!(
                    "server {{ listen {address} ssl; ssl_certificate {root}/{name}.pem; \
                     ssl_certificate_key {root}/{name}.key; ssl_protocols {version}; \
                     ssl_ciphers ALL:@SECLEVEL=0; location / {{ return 200 ok; }} }}"
                )
            });
            let args = ["--insecure", "--conns", "3", "-n", "30", "--no-floor", "--timeout", "20s"];
            let ended = loadgen_at(&format!("https://{}/", nginx.address), &args);
            let report = ended.report();
            assert_eq!(whole(report).ok, 30, "{} under {version}: {}", kind.name, brief(report));
            assert_eq!(report.tls.as_ref().unwrap().version, shown);
        }
    }
}

/// What we show ourselves is refused at once, in a line that says what would do.
#[test]
fn own_certificates_that_cannot_be_used_are_refused_at_once() {
    let Some(made) = Made::new() else { return };
    let of = |name: &str| KINDS.iter().find(|kind| kind.name == name).unwrap();
    assert!(made.make(of("usual")));
    std::fs::copy(made.path("usual.pem"), made.path("stranger.pem")).unwrap();
    assert!(made.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out stranger.key"));
    std::fs::copy(made.path("usual.pem"), made.path("keyless.pem")).unwrap();
    std::fs::copy(made.path("usual.pem"), made.path("keyless.key")).unwrap();
    let keys = "RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519";
    for (name, said) in [
        ("v1", "X.509 version"),
        ("rsa1024", keys),
        ("p521", keys),
        ("ed448", keys),
        ("damaged", "it is damaged"),
        ("stranger", "the private key is not that of the certificate"),
        ("keyless", "no unencrypted private key"),
    ] {
        if KINDS.iter().any(|kind| kind.name == name) && !made.make(of(name)) {
            continue;
        }
        let (certificate, key) = (made.path(&format!("{name}.pem")), made.path(&format!("{name}.key")));
        let flags = ["--insecure", "--tls-cert", &certificate, "--tls-key", &key];
        let ours = loadgen_at("tls://127.0.0.1:9", &flags);
        assert!(ours.code == 2 && error(&ours).contains(said), "{name}: {}", ours.stderr);
        let server = common::loadgen_plain(&["server", "--tls-cert", &certificate, "--tls-key", &key]);
        assert!(server.code == 2 && server.stderr.contains(said), "{name}: {}", server.stderr);
        assert_eq!(server.stderr.lines().count(), 1, "{}", server.stderr);
    }
    let (certificate, key) = (made.path("usual.pem"), made.path("usual.key"));
    let server = Server::start(&["--tls-cert", &certificate, "--tls-key", &key]);
    let ended = loadgen_at(&format!("tls://{}", server.target()), &[&["--ca", &certificate], &SHORT[..]].concat());
    clean(ended.expect(0));
}
