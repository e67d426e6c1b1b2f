//! The command line.

use crate::deadlines::Deadlines;
use crate::engine::{self, Choice, ENGINES};
use crate::tls::TlsOptions;
use clap::Parser;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use loadgen_core::files::read;
use loadgen_core::protocol::{self, PROTOCOLS, Protocol};
use loadgen_core::service_time::{Distribution, Injection, Stall};
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::sys::ring;
use loadgen_core::units;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Answers the clients of a load generator, and counts what it did.
#[derive(Debug, Parser)]
#[command(name = "loadgen-server", version, max_term_width = 100)]
pub struct Options {
    /// Where to listen: HOST:PORT or unix:PATH; port 0 takes a free one. The address is printed on stdout.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:12345", value_parser = address)]
    pub listen: Endpoint,

    /// How the kernel is asked which sockets are ready.
    #[arg(long, value_name = "ENGINE", default_value = "epoll", value_parser = engines())]
    pub engine: Choice,

    /// Options of engine io_uring, e.g. cq=4096,buffers=64x64KiB (docs/io_uring.md).
    #[arg(long, value_name = "WORDS", default_value = "", value_parser = ring::Options::parse)]
    pub ring: ring::Options,

    /// What is spoken.
    #[arg(long, value_name = "PROTOCOL", default_value = "echo", value_parser = protocols())]
    pub protocol: &'static Protocol,

    /// Threads; each has a listener of its own, and the kernel spreads connections over them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub threads: u64,

    /// Payload: bytes of one echo request, of an HTTP body. Takes 64KiB and the like.
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = size)]
    pub size: usize,

    /// Writes counters as JSON on exit; `-` is stdout.
    #[arg(long, value_name = "PATH|-")]
    pub stats: Option<String>,

    /// How long connections may take to end after SIGTERM or SIGINT.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub drain: Duration,

    /// How long peers may take, e.g. head=10s,idle=off; or off (docs/server.md).
    ///
    /// `first`: to say anything; `handshake`: to finish that of TLS; `head`, `body`: to send the whole of it;
    /// `unread`: to read any of a reply; `idle`: from one request to the next. What is not named keeps its default:
    /// first=6h,handshake=60s,head=60s,body=10m,unread=5m,idle=24h.
    #[arg(long, value_name = "LIST", default_value = "", value_parser = Deadlines::parse, hide_default_value = true)]
    pub deadlines: Deadlines,

    /// CPUs to pin threads to, in turn: 0-3,7.
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpus: Option<CpuList>,

    /// Connections that may wait to be accepted; the kernel clips it to net.core.somaxconn.
    #[arg(long, value_name = "N", default_value_t = 65535, value_parser = clap::value_parser!(i32).range(1..))]
    pub backlog: i32,

    /// Service times to inject, of one queue for all: fixed:1ms, exp:1ms, bimodal:0.1,1ms,50ms, trace:FILE.
    ///
    /// No CPU is burnt: a reply is held until the one virtual resource has served its request, and those before it
    /// (docs/server.md).
    #[arg(long, value_name = "DIST", value_parser = distribution)]
    pub service_time: Option<Distribution>,

    /// Delays to inject, of each request by itself.
    #[arg(long, value_name = "DIST", value_parser = distribution)]
    pub delay: Option<Distribution>,

    /// Holds all replies for the last LENGTH of every PERIOD: 1s/10s.
    #[arg(long, value_name = "LENGTH/PERIOD", value_parser = Stall::parse)]
    pub stall: Option<Stall>,

    /// Memory that keys and values may take (redis, memcached); what does not fit is refused [default: 1GiB, at most
    /// half of what this machine or control group has left].
    #[arg(long, value_name = "BYTES", value_parser = units::parse_size)]
    pub memory: Option<u64>,

    /// Seed of what is injected.
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::parse_count, hide_short_help = true)]
    pub seed: u64,

    /// Writes when each request came, was served and answered, as CSV on exit.
    #[arg(long, value_name = "PATH")]
    pub request_log: Option<PathBuf>,

    /// Bytes of the kernel's send buffer of a connection (SO_SNDBUF); for trying what short sends do.
    #[arg(long, value_name = "BYTES", value_parser = size, hide_short_help = true)]
    pub send_buffer: Option<usize>,

    /// Encryption.
    #[command(flatten)]
    pub tls: TlsOptions,

    /// So many connections will come: room for them is made, or missed, before the first.
    #[arg(long, value_name = "N", default_value = "0", hide = true)]
    pub expect: u64,

    /// End when this process, our parent, does.
    #[arg(long, value_name = "PID", hide = true)]
    pub parent: Option<u32>,
}

impl Options {
    /// What is to be injected.
    pub fn injection(&self) -> Injection {
        let Self { service_time, delay, stall, seed, .. } = self;
        Injection { service_time: service_time.clone(), delay: delay.clone(), stall: *stall, seed: *seed }
    }
}

/// Reads a distribution, and the file of `trace:FILE`.
///
/// # Errors
/// One line that says what is wrong with the text or the file.
pub fn distribution(text: &str) -> Result<Distribution, String> {
    Distribution::parse(text, |file| read::text(Path::new(file), read::DATA_MAX))
}

/// The CPUs of `--cpus`, in the order given; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

fn engines() -> impl TypedValueParser<Value = Choice> {
    let known = ENGINES.iter().map(|e| PossibleValue::new(e.name).help(e.about));
    let auto = PossibleValue::new(engine::AUTO).help("io_uring where it works, else epoll");
    PossibleValuesParser::new(known.chain([auto])).try_map(|name| match engine::by_name(&name) {
        Some(engine) => Ok(Choice::This(engine)),
        None if name == engine::AUTO => Ok(Choice::Auto),
        None => Err("no such engine"),
    })
}

fn protocols() -> impl TypedValueParser<Value = &'static Protocol> {
    PossibleValuesParser::new(PROTOCOLS.iter().map(|p| PossibleValue::new(p.name).help(p.about)))
        .try_map(|name| protocol::by_name(&name).ok_or("no such protocol"))
}

fn address(text: &str) -> Result<Endpoint, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Endpoint::unix(Path::new(path));
    }
    let mut found = text.to_socket_addrs().map_err(|e| format!("{e}; give HOST:PORT, IPv6 in brackets"))?;
    found.next().map(Endpoint::Tcp).ok_or_else(|| "the name has no address".into())
}

fn cpus(text: &str) -> Result<CpuList, String> {
    units::parse_cpus(text).map(CpuList)
}

fn size(text: &str) -> Result<usize, String> {
    const LARGEST: u64 = 1 << 30;
    let bytes = units::parse_size(text)?;
    if bytes <= LARGEST { Ok(bytes as usize) } else { Err("that is more than 1GiB".into()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration_ns(text).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let options = Options::try_parse_from(["loadgen-server"]).unwrap();
        assert_eq!(options.listen.to_string(), "127.0.0.1:12345");
        assert_eq!((options.size, options.threads), (64, 1));
        assert!(matches!(options.engine, Choice::This(engine) if engine.name == "epoll"));
        for engine in ENGINES {
            let options = Options::try_parse_from(["loadgen-server", "--engine", engine.name]).unwrap();
            assert!(matches!(options.engine, Choice::This(chosen) if chosen.name == engine.name));
        }
    }

    #[test]
    fn quantities_are_read_with_their_units() {
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(cpus("0-2,7"), Ok(CpuList(vec![0, 1, 2, 7])));
        assert!(size("64 parsecs").is_err() && duration("2").is_err() && cpus("3-1").is_err());
    }
}
