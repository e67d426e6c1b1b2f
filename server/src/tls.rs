//! Encryption as typed: who the server is, whom it lets in.

use crate::cli::Options;
use crate::serve::{Failure, UNWRITTEN, USAGE, tell};
use clap::Args;
use loadgen_core::files::read;
use loadgen_core::result::write;
use loadgen_core::tls::certificate::{self, Identity};
use loadgen_core::tls::server::{self, Settings};
use loadgen_core::tls::{Versions, parse_alpn};
use std::path::{Path, PathBuf};

/// What may be said about encryption (docs/tls.md).
#[derive(Clone, Debug, Default, Args)]
pub struct TlsOptions {
    /// Speaks TLS, with a self-signed certificate that is made on the spot.
    #[arg(long)]
    pub tls: bool,

    /// Speaks TLS with this certificate, in PEM; those between it and its issuer may follow.
    #[arg(long, value_name = "FILE", requires = "tls_key", hide_short_help = true)]
    pub tls_cert: Option<PathBuf>,

    /// The key of the certificate, in PEM, unencrypted.
    #[arg(long, value_name = "FILE", requires = "tls_cert", hide_short_help = true)]
    pub tls_key: Option<PathBuf>,

    /// Writes the server's certificate, for clients to verify it: `loadgen --ca FILE`, `curl --cacert FILE`.
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    pub tls_cert_out: Option<PathBuf>,

    /// Clients have to show a certificate that one of these has signed.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub tls_client_ca: Option<PathBuf>,

    /// Every handshake is a full one: clients get no tickets.
    #[arg(long, hide_short_help = true)]
    pub tls_no_resumption: bool,

    /// Application protocols, the preferred one first; by default http/1.1 for http, and none else.
    #[arg(long, value_name = "LIST", value_parser = parse_alpn, hide_short_help = true)]
    pub alpn: Option<AlpnList>,
}

/// Names of application protocols; a list that is one value to the command line.
pub type AlpnList = Vec<Vec<u8>>;

impl TlsOptions {
    /// Whether the stream is encrypted.
    pub fn is_on(&self) -> bool {
        self.tls || self.tls_cert.is_some()
    }

    /// A flag that has no meaning without TLS.
    fn idle(&self) -> Option<&'static str> {
        let flags = [
            (self.tls_cert_out.is_some(), "--tls-cert-out"),
            (self.tls_client_ca.is_some(), "--tls-client-ca"),
            (self.tls_no_resumption, "--tls-no-resumption"),
            (self.alpn.is_some(), "--alpn"),
        ];
        flags.into_iter().find_map(|(given, name)| given.then_some(name))
    }
}

/// What all connections have in common; `None`: they are not encrypted.
pub(crate) fn settings(options: &Options) -> Result<Option<Settings>, Failure> {
    let tls = &options.tls;
    if !tls.is_on() {
        return match tls.idle() {
            None => Ok(None),
            Some(flag) => Err(Failure::new(USAGE, format!("{flag} is about TLS, which is off; add --tls"))),
        };
    }
    if options.protocol.transport.has_messages() {
        let message = format!("TLS is for streams, and {} has datagrams (that would be DTLS)", options.protocol.name);
        return Err(Failure::new(USAGE, message));
    }
    let identity = identity(options)?;
    if let Some(path) = &tls.tls_cert_out {
        let text: String = identity.chain().iter().map(|one| certificate::to_pem(one)).collect();
        let written = write::atomically(path, |to| to.write_all(text.as_bytes()))
            .map_err(|e| Failure::new(UNWRITTEN, format!("cannot write the certificate to {}: {e}", path.display())))?;
        written.warning().iter().for_each(tell);
    }
    let issuers = |path: &PathBuf| {
        let explain = |e: String| Failure::new(USAGE, format!("--tls-client-ca {}: {e}", path.display()));
        certificate::certificates(&pem("--tls-client-ca", path)?).map_err(explain)
    };
    let client_issuers = tls.tls_client_ca.as_ref().map(issuers).transpose()?.unwrap_or_default();
    let default_alpn = options.protocol.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let settings = Settings::new(server::Options {
        identity,
        client_issuers,
        resume: !tls.tls_no_resumption,
        alpn: tls.alpn.clone().unwrap_or(default_alpn),
        versions: Versions::Any,
    });
    settings.map(Some).map_err(|why| Failure::new(USAGE, format!("TLS: {why}")))
}

fn identity(options: &Options) -> Result<Identity, Failure> {
    let refuse = |why: String| Failure::new(USAGE, format!("TLS: {why}"));
    if let (Some(chain), Some(key)) = (&options.tls.tls_cert, &options.tls.tls_key) {
        let (chain, key) = (pem("--tls-cert", chain)?, pem("--tls-key", key)?);
        return Identity::from_pem(&chain, &key).map_err(refuse);
    }
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    // A unix socket has none.
    if let Some(listen) = options.listen.ip().filter(|ip| !ip.is_unspecified())
        && !names.contains(&listen.to_string())
    {
        names.push(listen.to_string());
    }
    Identity::self_signed(&names).map_err(refuse)
}

fn pem(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    read::text_bytes(path, read::PEM_MAX).map_err(|why| Failure::new(USAGE, format!("{flag}: {why}")))
}
