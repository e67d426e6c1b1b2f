//! What users do: how long they think, how they come and go, and how they leave.

use crate::cli::RunArgs;
use crate::failure::Failure;
use crate::plan::about_requests;
use clap::Args;
use loadgen_core::files::read;
use loadgen_core::protocol::{Protocol, Shape};
use loadgen_core::rng::Rng;
use loadgen_core::scenario::Scenario;
use loadgen_core::service_time::Distribution;
use loadgen_core::units;
use std::path::Path;
use std::sync::Arc;

/// Requests of one session, at most.
const LENGTH_MAX: u64 = 1_000_000_000;

#[derive(Args, Clone, Debug)]
pub struct TrafficArgs {
    /// Users think before each request: fixed:10ms, exp:1s, bimodal:0.1,10ms,1s, trace:FILE
    ///
    /// The next request of a connection is due so long after the reply before it, and its latency counts from there
    /// (docs/traffic.md).
    #[arg(long, value_name = "DIST", hide_short_help = true)]
    pub think: Option<String>,
    /// Sessions arrive at --rate, and each asks so many times in sequence: N, A..B, or geom:P (partly open)
    ///
    /// geom:P: each request is the session's last with probability P. A session takes a free connection, and waits
    /// where there is none; --think goes between its requests.
    #[arg(long, value_name = "N", requires = "rate", value_parser = Lengths::parse, hide_short_help = true)]
    pub session_requests: Option<Lengths>,
    /// Where sessions have their connection from: keep (any that is free) or new (one of their own)
    #[arg(long, value_name = "HOW", default_value = "keep", hide_short_help = true)]
    pub session_conn: String,
    /// How connections are closed: fin (in good order) or rst (a reset, which leaves no TIME_WAIT)
    #[arg(long, value_name = "HOW", default_value = "fin", hide_short_help = true)]
    pub close: String,
}

/// How many requests a session has.
#[derive(Clone, Debug, PartialEq)]
pub enum Lengths {
    Fixed(u32),
    /// From the first to the second, each as likely as the others.
    Between(u32, u32),
    /// Each request is the last with this probability.
    Geometric(f64),
}

impl Lengths {
    /// Reads `5`, `1..20` or `geom:0.2`.
    ///
    /// # Errors
    /// One line that says what there is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| match units::parse_count(text)? {
            number @ 1..=LENGTH_MAX => Ok(number as u32),
            number => Err(format!("{number} is out of range; a session has 1 to {LENGTH_MAX} requests")),
        };
        if let Some(probability) = text.strip_prefix("geom:") {
            let known = units::parse_decimal(probability).filter(|p| (1e-6..=1.0).contains(p));
            return known.map(Self::Geometric).ok_or_else(|| {
                format!("'{probability}' is no probability of a session's end; give geom:0.000001 to geom:1")
            });
        }
        match text.split_once("..") {
            None => number(text).map(Self::Fixed),
            Some((least, most)) => match (number(least)?, number(most)?) {
                (least, most) if least <= most => Ok(Self::Between(least, most)),
                _ => Err(format!("'{text}' ends before it begins")),
            },
        }
    }

    /// The same in one spelling.
    pub fn describe(&self) -> String {
        match self {
            Self::Fixed(number) => number.to_string(),
            Self::Between(least, most) => format!("{least}..{most}"),
            Self::Geometric(probability) => format!("geom:{probability}"),
        }
    }

    /// The next session's.
    pub fn draw(&self, rng: &mut Rng) -> u32 {
        match *self {
            Self::Fixed(number) => number,
            Self::Between(least, most) => least + rng.below(u64::from(most - least) + 1) as u32,
            // By inversion: P(length > n) = (1 - p)^n. A probability of 1 gives 0 / -inf, and so 1.
            Self::Geometric(p) => ((rng.unit().ln() / (-p).ln_1p()).floor() as u32).saturating_add(1),
        }
    }
}

/// Sessions that arrive by a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Sessions {
    pub lengths: Lengths,
    /// Each opens a connection of its own.
    pub fresh: bool,
}

/// What was asked for, in the words of a plan.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    pub think: Option<Distribution>,
    /// Where steps of its scripts have think times of their own.
    pub scripts: Option<Arc<Scenario>>,
    pub sessions: Option<Sessions>,
    /// Connections are closed by a reset.
    pub reset: bool,
}

impl Traffic {
    pub fn new(args: &RunArgs, protocol: &Protocol) -> Result<Self, Failure> {
        let typed = &args.traffic;
        let reset = choice("--close", &typed.close, ["fin", "rst"])?;
        let fresh = choice("--session-conn", &typed.session_conn, ["keep", "new"])?;
        let given = [
            ("--close rst", reset),
            ("--requests-per-conn", args.requests_per_conn.is_some()),
            ("--think", typed.think.is_some()),
            ("--session-requests", typed.session_requests.is_some()),
            ("--session-conn new", fresh),
        ];
        for (flag, _) in given.into_iter().filter(|(_, given)| *given) {
            about_connections(flag, protocol)?;
        }
        if fresh && typed.session_requests.is_none() {
            return Err(Failure::usage("--session-conn new is about sessions, and there are none")
                .help("give --session-requests and --rate; or --requests-per-conn for connections that come and go"));
        }
        let read = |file: &str| read::text(Path::new(file), read::DATA_MAX);
        let think = typed.think.as_ref().map(|text| Distribution::parse(text, read)).transpose();
        let think = think.map_err(|why| Failure::usage(format!("--think: {why}")))?;
        let sessions = typed.session_requests.clone().map(|lengths| Sessions { lengths, fresh });
        let scripts = args.scenario.file.clone().filter(|scenario| scenario.thinks());
        let traffic = Self { think, scripts, sessions, reset };
        traffic.check(args, protocol)?;
        Ok(traffic)
    }

    /// Whether there is a think time before any request.
    pub fn thinks(&self) -> bool {
        self.think.is_some() || self.scripts.is_some()
    }

    /// Refuses what contradicts itself.
    fn check(&self, args: &RunArgs, protocol: &Protocol) -> Result<(), Failure> {
        let refuse = |message: &str, help: &str| Err(Failure::usage(message).help(help));
        if !self.thinks() && self.sessions.is_none() {
            return Ok(());
        }
        let flag = match (&self.think, &self.scripts) {
            (Some(_), _) => "--think",
            (None, Some(_)) => "a think time in a script",
            (None, None) => "--session-requests",
        };
        about_requests(flag, protocol)?;
        if args.pipeline != 1 {
            let message =
                format!("{flag} does not go with --pipeline: who thinks, or asks in sequence, waits for replies");
            return Err(Failure::usage(message).help("leave --pipeline at 1, and use more --conns"));
        }
        if args.in_flight.is_some() {
            let message = format!("{flag} does not go with --in-flight: the user says when the next request is due");
            return Err(Failure::usage(message).help("use fewer --conns"));
        }
        if self.sessions.is_none() {
            return match args.rate {
                Some(_) => refuse(
                    &format!("{flag} does not go with --rate: in an open loop the schedule says when a request is due"),
                    "give --session-requests, for sessions that arrive at --rate; or leave --rate out",
                ),
                None => Ok(()),
            };
        }
        if args.requests.is_some() {
            return refuse(
                "--requests does not go with --session-requests: the last session may be in the middle of its own",
                "use --duration",
            );
        }
        if args.requests_per_conn.is_some() {
            return refuse(
                "--requests-per-conn does not go with --session-requests: a session would lose its connection",
                "use --session-conn new, for a connection of its own for each session",
            );
        }
        if args.conns.steady().is_none() {
            return refuse(
                "--conns in steps does not go with --session-requests: sessions would lose their connections",
                "give --conns one number, and --rate the steps",
            );
        }
        Ok(())
    }
}

/// Refuses flags about users' connections, their coming and going, for protocols that have none.
fn about_connections(flag: &str, protocol: &Protocol) -> Result<(), Failure> {
    if protocol.shape != Shape::Datagram {
        return about_requests(flag, protocol);
    }
    let name = protocol.name;
    Err(Failure::usage(format!("{flag} is about connections that come and go, and {name} has none; leave it out")))
}

/// Whether the second of two words was given.
fn choice(flag: &str, typed: &str, [first, second]: [&str; 2]) -> Result<bool, Failure> {
    match typed {
        word if word == first => Ok(false),
        word if word == second => Ok(true),
        other => Err(Failure::usage(format!("{flag} {other} is not known; there are {first} and {second}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_refused() {
        for (text, lengths) in [
            ("5", Lengths::Fixed(5)),
            ("1k", Lengths::Fixed(1000)),
            ("1..20", Lengths::Between(1, 20)),
            ("geom:0.2", Lengths::Geometric(0.2)),
        ] {
            assert_eq!(Lengths::parse(text), Ok(lengths.clone()));
            assert_eq!(Lengths::parse(&lengths.describe()), Ok(lengths));
        }
        for wrong in ["", "0", "-1", "3..2", "0..2", "geom:0", "geom:1.1", "geom:nan", "geom:", "exp:3", "2..", "10G"] {
            let problem = Lengths::parse(wrong).unwrap_err();
            assert!(!problem.contains('\n') && !problem.is_empty(), "{wrong}");
        }
    }

    #[test]
    fn lengths_have_their_mean_and_their_bounds() {
        let mut rng = Rng::new(5);
        let mut draws = |lengths: Lengths| (0..100_000).map(|_| lengths.draw(&mut rng)).collect::<Vec<u32>>();
        assert!(draws(Lengths::Fixed(3)).iter().all(|n| *n == 3));
        assert!(draws(Lengths::Geometric(1.0)).iter().all(|n| *n == 1));
        let mean = |draws: &[u32]| draws.iter().map(|n| f64::from(*n)).sum::<f64>() / 1e5;
        let between = draws(Lengths::Between(2, 6));
        assert!(between.iter().all(|n| (2..=6).contains(n)) && (mean(&between) - 4.0).abs() < 0.03);
        let geometric = draws(Lengths::Geometric(0.25));
        // Mean 1 / p; the standard error is sqrt(1 - p) / p / sqrt(1e5) = 0.011.
        assert!((mean(&geometric) - 4.0).abs() < 0.05, "{}", mean(&geometric));
        let once = geometric.iter().filter(|n| **n == 1).count();
        assert!((24_000..26_000).contains(&once), "{once}");
        assert!(geometric.iter().all(|n| *n >= 1));
    }
}
