//! Which engines a run has: by name, or the best that works here.

use super::{AUTO, ENGINES, Entry, by_name, epoll, io_uring};
use crate::cli::RunArgs;
use crate::failure::{Exit, Failure};
use crate::plan::{Plan, unknown};
use loadgen_core::sys::{limits, ring};

/// What was chosen.
#[derive(Debug)]
pub struct Engines {
    pub engine: &'static Entry,
    /// The engine that was asked for and why it does not run.
    pub instead_of: Option<String>,
    pub ring: ring::Options,
    /// The embedded server's, which chooses for itself where that is `auto`.
    pub server_engine: String,
    /// `None`: it has no ring.
    pub server_ring: Option<ring::Options>,
}

impl Engines {
    /// `embedded`: the server is ours.
    pub fn choose(args: &RunArgs, embedded: bool) -> Result<Self, Failure> {
        let ring = options("--ring", &args.ring, "--engine", &args.engine)?;
        if ring.inline_send {
            return Err(Failure::usage("--ring inline-send is for servers: a client's connections are no descriptors"));
        }
        if ring.sqpoll_idle_ms.is_some() {
            // What that thread uses is nowhere in the figures of the threads that measure.
            return Err(Failure::usage("--ring sqpoll is for servers: a client could not tell its own CPU time apart"));
        }
        let (engine, instead_of) = choose(&args.engine, &ring)?;
        let server_engine = choose_server(&args.server_engine)?;
        let server_ring = options("--server-ring", &args.server_ring, "--server-engine", &server_engine)?;
        let server_ring = (embedded && may_have_ring(&server_engine)).then_some(server_ring);
        Ok(Self { engine, instead_of, ring, server_engine, server_ring })
    }
}

/// Whether all rings of the run can be had at once, beside those of a server of ours, which has its own by now. For
/// `auto` another engine takes their place; says what to tell about that.
pub fn make_room(plan: &mut Plan, automatic: bool) -> Result<Option<String>, Failure> {
    if !plan.engine.needs_ring {
        return Ok(None);
    }
    let soft = limits::raise_descriptors()
        .map_err(|error| Failure::new(Exit::Machine, format!("cannot raise the descriptor limit: {error}")))?;
    let each = io_uring::rings(plan.total_connections().div_ceil(plan.threads), soft);
    match ring::room(&each.repeat(plan.threads as usize), &plan.ring) {
        Ok(()) => Ok(None),
        Err(refusal) if automatic => {
            let warning = format!("engine {} instead of {}", epoll::ENTRY.name, refusal.instead_of());
            (plan.engine, plan.instead_of) = (&epoll::ENTRY, Some(refusal.instead_of()));
            Ok(Some(warning))
        }
        Err(refusal) => Err(Failure::new(Exit::Machine, refusal.cause).help(refusal.remedy)),
    }
}

/// For `auto`, the best that works here, and why it is not the one before it.
fn choose(name: &str, options: &ring::Options) -> Result<(&'static Entry, Option<String>), Failure> {
    if name == AUTO {
        return Ok(match ring::check(options) {
            Ok(()) => (&io_uring::ENTRY, None),
            Err(refusal) => (&epoll::ENTRY, Some(refusal.instead_of())),
        });
    }
    let Some(entry) = by_name(name) else {
        let known: Vec<String> = ENGINES.iter().map(|e| format!("{} ({})", e.name, e.about)).collect();
        return Err(Failure::usage(format!("engine '{name}' is not known; there are {}, {AUTO}", known.join(", "))));
    };
    if entry.needs_ring {
        ring::check(options).map_err(|refusal| Failure::new(Exit::Machine, refusal.cause).help(refusal.remedy))?;
    }
    Ok((entry, None))
}

fn choose_server(name: &str) -> Result<String, Failure> {
    let known = loadgen_server::engine::ENGINES.iter().map(|e| e.name).chain([AUTO]);
    if known.clone().any(|word| word == name) {
        Ok(name.to_owned())
    } else {
        Err(unknown("server engine", name, known))
    }
}

fn may_have_ring(server_engine: &str) -> bool {
    server_engine == AUTO || loadgen_server::engine::by_name(server_engine).is_some_and(|engine| engine.needs_ring)
}

/// Options say something about an engine that has a ring, and about no other.
fn options(flag: &str, words: &str, engine_flag: &str, engine: &str) -> Result<ring::Options, Failure> {
    if !words.is_empty() && !may_have_ring(engine) {
        let message = format!("{flag} {words} is for {engine_flag} io_uring, and this run has {engine}");
        return Err(Failure::usage(message).help(format!("add {engine_flag} io_uring, or leave {flag} out")));
    }
    ring::Options::parse(words).map_err(|error| Failure::usage(format!("{flag}: {error}")))
}
