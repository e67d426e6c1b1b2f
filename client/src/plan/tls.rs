//! Encryption as typed: whom we trust, who we are, and what we ask for (docs/tls.md).

use super::Plan;
use crate::cli::RunArgs;
use crate::failure::{Exit, Failure};
use crate::resolve::ResolvedTarget;
use crate::target::Target;
use clap::Args;
use loadgen_core::files::read;
use loadgen_core::handshake::Handshakes;
use loadgen_core::protocol::{Client, Protocol, tls};
use loadgen_core::result::{self, Report, Scenario, ScenarioTls};
use loadgen_core::tls::certificate::{self, Identity};
use loadgen_core::tls::client::{Options, Settings, Trust};
use loadgen_core::tls::{CertificateDer, Versions, parse_alpn};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempPath;

#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// Encrypt the stream, as https:// rediss:// memcacheds:// and tls:// do (docs/tls.md)
    #[arg(long, hide_short_help = true)]
    pub tls: bool,
    /// Trust the certificates in this file (PEM), and what they have signed [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure", hide_short_help = true)]
    pub ca: Option<PathBuf>,
    /// Trust whoever answers: nothing is verified
    #[arg(long, hide_short_help = true)]
    pub insecure: bool,
    /// The name that the server's certificate must have, and that it is told [default: the target's]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub server_name: Option<String>,
    /// Application protocols, the preferred one first [default: http/1.1 for http, none else]
    #[arg(long, value_name = "LIST", hide_short_help = true)]
    pub alpn: Option<String>,
    /// Our certificate (PEM), for servers that ask for one
    #[arg(long, value_name = "FILE", requires = "tls_key", hide_short_help = true)]
    pub tls_cert: Option<PathBuf>,
    /// The key of our certificate (PEM, unencrypted)
    #[arg(long, value_name = "FILE", requires = "tls_cert", hide_short_help = true)]
    pub tls_key: Option<PathBuf>,
    /// Every handshake is a full one: no session is resumed
    #[arg(long, hide_short_help = true)]
    pub no_resumption: bool,
    /// The embedded server speaks TLS; its certificate is trusted
    #[arg(long, hide_short_help = true)]
    pub server_tls: bool,
}

/// What a run does about encryption.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    on: bool,
    trust: Option<Trust>,
    /// Where the embedded server writes its certificate; the file is gone when the plan is.
    server_certificate: Option<Arc<TempPath>>,
    server_name: Option<String>,
    identity: Option<Identity>,
    alpn: Vec<Vec<u8>>,
    resume: bool,
    insecure: bool,
}

impl Tls {
    pub fn new(args: &RunArgs, protocol: &Protocol, targets: &[Target]) -> Result<Self, Failure> {
        let typed = &args.tls;
        let secure = targets.iter().filter(|target| target.tls).count();
        if secure > 0 && secure < targets.len() && !typed.tls {
            return Err(Failure::usage(
                "some targets are encrypted and others are not; the figures would be of neither",
            )
            .help("give --tls, or run twice at once with --start-at"));
        }
        if !targets.is_empty() && typed.server_tls {
            return Err(Failure::usage("--server-tls is for the embedded server, and this run has a target")
                .help("a loadgen-server of its own takes --tls"));
        }
        if targets.is_empty() && typed.tls && !typed.server_tls {
            return Err(Failure::usage("--tls is about a target, and this run has none")
                .help("--server-tls is for the embedded server"));
        }
        if !(typed.tls || typed.server_tls || secure > 0) {
            return typed.refuse_idle().map(|()| Self::default());
        }
        if protocol.transport.has_messages() {
            let message = format!("TLS is for streams, and {} has none (DTLS is not spoken here)", protocol.name);
            return Err(Failure::usage(message));
        }
        let default_alpn = protocol.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let alpn = typed.alpn.as_deref().map(parse_alpn).transpose();
        let alpn = alpn.map_err(|why| Failure::usage(format!("--alpn: {why}")))?.unwrap_or(default_alpn);
        let server_certificate = typed.server_tls.then(|| tempfile::NamedTempFile::with_prefix("loadgen-tls-"));
        let server_certificate = server_certificate.transpose().map_err(|error| {
            Failure::new(Exit::Machine, format!("no temporary file for the server's certificate: {error}"))
        })?;
        let mut tls = Self {
            on: true,
            trust: None,
            server_certificate: server_certificate.map(|file| Arc::new(file.into_temp_path())),
            server_name: typed.server_name.clone(),
            identity: typed.identity()?,
            alpn,
            resume: !typed.no_resumption,
            insecure: typed.insecure,
        };
        tls.trust = match (&typed.ca, &tls.server_certificate) {
            _ if typed.insecure => Some(Trust::Anybody),
            (Some(path), _) => Some(Trust::Certificates(certificates("--ca", path)?)),
            (None, Some(_)) => None,
            (None, None) => Some(Trust::Certificates(system()?)),
        };
        // What cannot work is found out before the run.
        for target in targets {
            tls.of(tls.trust.clone().unwrap_or(Trust::Anybody), &target.host)?;
        }
        Ok(tls)
    }

    /// For each target, or for the embedded server, which must be running; none: nothing is encrypted.
    fn settings(&self, targets: &[ResolvedTarget]) -> Result<Vec<Settings>, Failure> {
        if !self.on {
            return Ok(Vec::new());
        }
        let trust = match (&self.trust, &self.server_certificate) {
            (Some(trust), _) => trust.clone(),
            (None, Some(path)) => Trust::Certificates(certificates("--server-tls", path)?),
            (None, None) => Trust::Certificates(Vec::new()),
        };
        if targets.is_empty() {
            return Ok(vec![self.of(trust, "localhost")?]);
        }
        targets.iter().map(|resolved| self.of(trust.clone(), &resolved.target.host)).collect()
    }

    fn of(&self, trust: Trust, host: &str) -> Result<Settings, Failure> {
        let settings = Settings::new(Options {
            server_name: self.server_name.clone().unwrap_or_else(|| host.to_owned()),
            trust,
            identity: self.identity.clone(),
            alpn: self.alpn.clone(),
            resume: self.resume,
            versions: Versions::Any,
        });
        settings.map_err(|why| Failure::usage(format!("TLS: {why}")))
    }

    fn server_arguments(&self) -> Vec<String> {
        let Some(path) = &self.server_certificate else { return Vec::new() };
        let mut words = vec!["--tls".to_owned(), "--tls-cert-out".to_owned(), path.to_string_lossy().into_owned()];
        if !self.alpn.is_empty() {
            words.extend(["--alpn".to_owned(), self.alpn_names().join(",")]);
        }
        words
    }

    fn alpn_names(&self) -> Vec<String> {
        self.alpn.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn scenario(&self) -> Option<ScenarioTls> {
        self.on.then(|| ScenarioTls {
            resumption: self.resume,
            insecure: self.insecure,
            alpn: self.alpn_names(),
            client_certificate: self.identity.is_some(),
        })
    }
}

/// What is below the protocol on connections to each target; without any, nothing.
pub struct Layers(Vec<Settings>);

impl Layers {
    pub fn over(&self, clients: Vec<Box<dyn Client>>) -> Vec<Box<dyn Client>> {
        if self.0.is_empty() {
            return clients;
        }
        clients.into_iter().zip(&self.0).map(|(client, settings)| tls::Tls::boxed(client, settings.clone())).collect()
    }
}

/// What the rest of the client asks about layers, whichever there are.
impl Plan {
    /// An embedded server must be running.
    pub fn layers(&self) -> Result<Layers, Failure> {
        self.tls.settings(&self.targets).map(Layers)
    }

    /// Arguments that an embedded server is started with.
    pub fn layers_of_server(&self) -> Vec<String> {
        self.tls.server_arguments()
    }

    pub fn warning_of_layers(&self) -> Option<&'static str> {
        let warning = "warning: --insecure: the server's certificate is not verified; whoever answers is believed";
        self.tls.insecure.then_some(warning)
    }

    /// Why no connection was of use to a protocol.
    pub fn failure_of_layers(&self, report: &Report) -> Option<String> {
        let row = report.errors.iter().find(|row| row.kind.starts_with("tls_"))?;
        Some(format!("TLS with {} failed: {}", report.scenario.target, row.first))
    }

    pub fn ask_of_layers(&self, scenario: &mut Scenario) {
        scenario.tls = self.tls.scenario();
    }

    pub fn tell_of_layers(&self, report: &mut Report, of: &Handshakes) {
        let Some(asked) = self.tls.scenario() else { return };
        report.latency.handshake = of.time.report();
        let list = |names: &BTreeSet<&'static str>| names.iter().copied().collect::<Vec<_>>().join(", ");
        report.tls = Some(result::Tls {
            version: list(&of.versions),
            cipher: list(&of.ciphers),
            alpn: (!of.alpn.is_empty()).then(|| of.alpn.iter().cloned().collect::<Vec<_>>().join(", ")),
            insecure: asked.insecure,
            resumption: asked.resumption,
            handshakes_full: of.full,
            handshakes_resumed: of.resumed,
        });
    }
}

impl RunArgs {
    /// How another process reaches the embedded server that this run has: it does not know whose certificate that is,
    /// made a moment ago.
    pub fn layers_towards_own_server(&self) -> Vec<&'static str> {
        match &self.tls {
            TlsArgs { server_tls: false, .. } => Vec::new(),
            TlsArgs { insecure: true, .. } => vec!["--tls"],
            _ => vec!["--tls", "--insecure"],
        }
    }
}

impl TlsArgs {
    /// Refuses what has no meaning without TLS.
    fn refuse_idle(&self) -> Result<(), Failure> {
        let flags = [
            (self.ca.is_some(), "--ca"),
            (self.insecure, "--insecure"),
            (self.server_name.is_some(), "--server-name"),
            (self.alpn.is_some(), "--alpn"),
            (self.tls_cert.is_some(), "--tls-cert"),
            (self.no_resumption, "--no-resumption"),
        ];
        let Some((_, flag)) = flags.into_iter().find(|(given, _)| *given) else { return Ok(()) };
        Err(Failure::usage(format!("{flag} is about TLS, which this run is without"))
            .help("use https:// (rediss://, memcacheds://, tls://), --tls, or --server-tls"))
    }

    fn identity(&self) -> Result<Option<Identity>, Failure> {
        let (Some(chain), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let (chain, key) = (pem("--tls-cert", chain)?, pem("--tls-key", key)?);
        Identity::from_pem(&chain, &key).map(Some).map_err(|why| Failure::usage(format!("TLS: {why}")))
    }
}

/// The variable that names other issuers than those that this system trusts.
const SYSTEM_FILE: &str = "SSL_CERT_FILE";

/// Issuers that this system trusts.
fn system() -> Result<Vec<CertificateDer<'static>>, Failure> {
    // What reads them all knows no bounds.
    if let Some(file) = std::env::var_os(SYSTEM_FILE).filter(|file| !file.is_empty()) {
        pem(SYSTEM_FILE, Path::new(&file))?;
    }
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    let why = found.errors.first().map_or_else(|| "it has none".to_owned(), ToString::to_string);
    Err(Failure::new(Exit::Machine, format!("the certificates that this system trusts cannot be read: {why}"))
        .help("name one with --ca FILE, or verify nothing with --insecure"))
}

fn certificates(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = certificate::certificates(&pem(flag, path)?);
    found.map_err(|why| Failure::usage(format!("{flag} {}: {why}", path.display())))
}

fn pem(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    read::text_bytes(path, read::PEM_MAX).map_err(|why| Failure::usage(format!("{flag}: {why}")))
}
