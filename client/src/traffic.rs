//! What users do: how long they think, how they come and go, and how they leave.

use crate::cli::RunArgs;
use crate::failure::Failure;
use crate::plan::about_requests;
use clap::Args;
use loadgen_core::files::read;
use loadgen_core::load::users::{Lengths, Sessions, Traffic};
use loadgen_core::protocol::Protocol;
use loadgen_core::service_time::Distribution;
use std::path::Path;

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

/// What was typed, in the words of a plan.
pub fn of(args: &RunArgs, protocol: &Protocol) -> Result<Traffic, Failure> {
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
    let traffic = Traffic { think, scripts, sessions, reset };
    check(&traffic, args, protocol)?;
    Ok(traffic)
}

/// Refuses what contradicts ittraffic.
fn check(traffic: &Traffic, args: &RunArgs, protocol: &Protocol) -> Result<(), Failure> {
    let refuse = |message: &str, help: &str| Err(Failure::usage(message).help(help));
    if !traffic.thinks() && traffic.sessions.is_none() {
        return Ok(());
    }
    let flag = match (&traffic.think, &traffic.scripts) {
        (Some(_), _) => "--think",
        (None, Some(_)) => "a think time in a script",
        (None, None) => "--session-requests",
    };
    about_requests(flag, protocol)?;
    if args.pipeline != 1 {
        let message = format!("{flag} does not go with --pipeline: who thinks, or asks in sequence, waits for replies");
        return Err(Failure::usage(message).help("leave --pipeline at 1, and use more --conns"));
    }
    if args.in_flight.is_some() {
        let message = format!("{flag} does not go with --in-flight: the user says when the next request is due");
        return Err(Failure::usage(message).help("use fewer --conns"));
    }
    if traffic.sessions.is_none() {
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

/// Refuses flags about users' connections, their coming and going, for protocols that have none.
fn about_connections(flag: &str, protocol: &Protocol) -> Result<(), Failure> {
    if protocol.transport.has_connections() {
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
