//! From options to threads and back: listeners, signals, the statistics at the end.

use crate::cli::Options;
use crate::engine::{Choice, Engine, Worker};
use crate::injector::{Injector, Releasing};
use crate::request_log::RequestLog;
use crate::stats::{self, Counters};
use crate::tls;
use loadgen_core::files::stdout;
use loadgen_core::machine;
use loadgen_core::protocol::ServerOptions;
use loadgen_core::protocol::store::{self, Store};
use loadgen_core::result::{Machine, ServerStats, pretty, write};
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::sys::{affinity, datagram, errno, inherited, limits, memory, process, signals, socket};
use loadgen_core::tls::server::Settings;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

/// Exit codes, as in the table of all commands.
pub(crate) const USAGE: u8 = 2;
pub(crate) const UNWRITTEN: u8 = 6;
pub(crate) const MACHINE: u8 = 7;

/// As many signals as make a thread leave at once.
const LEAVE: usize = 2;

/// Why the server could not do what it was asked to: one line with the remedy, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What failed for want of descriptors, memory and the like.
    fn machine(what: &str, error: &io::Error) -> Self {
        let remedy = if errno::name(error) == "EMFILE" { "; raise `ulimit -n`" } else { "" };
        Self::new(MACHINE, format!("{what}: {error}{remedy}"))
    }
}

/// Says something on standard error. Where that is closed, nobody wants to hear it, and no client may suffer.
pub(crate) fn tell(what: impl Display) {
    // See above.
    let _ = writeln!(io::stderr(), "loadgen-server: {what}");
}

/// Serves until SIGTERM or SIGINT, and writes the statistics.
pub fn serve(options: &Options) -> Result<(), Failure> {
    if let Some(parent) = options.parent {
        let code = |e: &io::Error| if errno::is_machines(e) { MACHINE } else { USAGE };
        process::die_with_parent(parent).map_err(|e| Failure::new(code(&e), format!("--parent {parent}: {e}")))?;
    }
    // First, since the tables of rings are as large as the limit.
    limits::raise_descriptors().map_err(|e| Failure::machine("cannot raise the descriptor limit", &e))?;
    let (engine, instead_of) = options
        .engine
        .settle(options)
        .map_err(|refusal| Failure::new(MACHINE, format!("{}\n  help: {}", refusal.cause, refusal.remedy)))?;
    check_options(options, engine)?;
    if let Some(why) = &instead_of {
        tell(format_args!("engine {} instead of {why}", engine.name));
    }
    (engine.probe)().map_err(|e| Failure::machine(&format!("engine {} cannot run here", engine.name), &e))?;
    if let Some(fallback) = (engine.fallback)() {
        tell(format_args!("engine {} by {fallback}", engine.name));
    }
    results_can_be_written(options)?;
    let injector = injector(options)?;
    let tls = tls::settings(options)?;
    let received = signals::watch(LEAVE + 1).map_err(|e| Failure::machine("cannot watch for signals", &e))?;
    // Before anybody is served: reading all this takes a moment.
    let machine = options.stats.as_ref().map(|_| machine(options));
    let (address, listeners) = listen(options)?;
    // Also where we fail before anybody was served.
    let _file = SocketFile(address.file().map(Path::to_owned));
    if let Some(bytes) = options.send_buffer {
        let bound = listeners.iter().try_for_each(|listener| socket::bound_send_buffer(listener.as_fd(), bytes));
        bound.map_err(|e| Failure::machine("cannot bound the send buffer", &e))?;
    }
    warn_of_exposure(&address);
    memory::keep_reserve().map_err(|e| Failure::new(MACHINE, e.to_string()))?;

    let asked = ServerOptions {
        size: options.size,
        scheme: if tls.is_some() { options.protocol.secure_schemes.first().map(|(scheme, _)| *scheme) } else { None },
        store: Arc::new(Store::within(store_bytes(options))),
    };
    let (ready, started) = mpsc::channel();
    let workers = listeners
        .into_iter()
        .enumerate()
        .map(|(index, listener)| {
            let (injector, asked, tls) = (injector.clone(), asked.clone(), tls.clone());
            let context = ThreadContext { signals: Arc::clone(&received), ready: ready.clone(), injector, asked, tls };
            start(options, engine, index, listener, context)
        })
        .collect::<Result<Vec<_>, _>>()?;
    drop(ready);

    // A thread that fails to start hangs up without a word; joining it says why.
    let listening = started.iter().count() == workers.len();
    let announced = if listening { announce(&address) } else { Ok(()) };
    if !listening || announced.is_err() {
        received.store(LEAVE, Ordering::Relaxed);
    }
    let mut stats = join(options, engine, workers, injector.as_deref())?;
    announced?;
    stats.instead_of = instead_of;
    stats.fallback = (engine.fallback)();
    stats.machine = machine;
    options.stats.as_deref().map_or(Ok(()), |path| write_stats(&stats, path))?;
    match (&options.request_log, injector) {
        (Some(path), Some(injector)) => write_log(&injector, path),
        _ => Ok(()),
    }
}

fn check_options(options: &Options, engine: &Engine) -> Result<(), Failure> {
    if !options.protocol.transport.has_connections() && matches!(options.listen, Endpoint::Unix(_)) {
        let message = format!("{} goes over IP; give --listen an address and a port", options.protocol.name);
        return Err(Failure::new(USAGE, message));
    }
    let automatic = matches!(options.engine, Choice::Auto);
    if !engine.needs_ring && !automatic && !options.ring.describe().is_empty() {
        return Err(Failure::new(USAGE, format!("--ring is for engine io_uring, and this is {}", engine.name)));
    }
    if options.ring.zero_copy.is_some() && matches!(options.listen, Endpoint::Unix(_)) {
        let message = "--ring zero-copy is for networks: the kernel refuses it for unix sockets (EOPNOTSUPP)";
        return Err(Failure::new(USAGE, message));
    }
    match options.ring.about_streams().filter(|_| options.protocol.transport.has_messages()) {
        Some(word) => {
            let message = format!("--ring {word} is for streams, and {} has none; leave it out", options.protocol.name);
            Err(Failure::new(USAGE, message))
        }
        None => Ok(()),
    }
}

/// The memory that a store may take: half of what there is, so that connections have room too, and that the end comes
/// with an error of the protocol and not with the kernel's.
fn store_bytes(options: &Options) -> usize {
    let asked = options.memory.unwrap_or(store::BYTES_MAX as u64);
    let share = machine::available_memory_bytes().map_or(u64::MAX, |left| left / 2);
    if options.memory.is_some_and(|asked| asked > share) && options.protocol.store {
        tell(format_args!("--memory: {share} bytes instead of {asked}, half of what is left here"));
    }
    asked.min(share).try_into().unwrap_or(usize::MAX)
}

fn machine(options: &Options) -> Machine {
    let cpus_pinned = options.cpus.iter().flat_map(|list| &list.0).map(|cpu| *cpu as u64).collect();
    Machine { cpus_pinned, ..machine::describe() }
}

/// One listener a thread, all of one port. Of a unix socket there is one, which the threads share.
fn listen(options: &Options) -> Result<(Endpoint, Vec<OwnedFd>), Failure> {
    let fail = |error: io::Error| bind_failure(&options.listen, &error);
    if let Some(path) = options.listen.file() {
        remove_stale(path)?;
    }
    // Alone at first: who shares the port from the start would silently share it with another server too.
    let has_messages = options.protocol.transport.has_messages();
    let open = |address: Endpoint, shared| match address.socket_addr() {
        Some(address) if has_messages => datagram::bind_datagram(address, shared),
        _ => socket::listen(address, shared, options.backlog),
    };
    let alone = open(options.listen.clone(), false).map_err(fail)?;
    if let Endpoint::Unix(_) = options.listen {
        let others = (1..options.threads).map(|_| alone.try_clone()).collect::<io::Result<Vec<_>>>().map_err(fail)?;
        return Ok((options.listen.clone(), std::iter::once(alone).chain(others).collect()));
    }
    let address = socket::local_address(alone.as_fd()).map_err(fail)?;
    if options.threads == 1 {
        return Ok((address.into(), vec![alone]));
    }
    drop(alone);
    let listeners = (0..options.threads).map(|_| open(address.into(), true).map_err(fail));
    Ok((address.into(), listeners.collect::<Result<_, _>>()?))
}

/// A server that was killed leaves its socket behind, and nobody can listen there until it is gone.
fn remove_stale(path: &Path) -> Result<(), Failure> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).is_err_and(refused) {
        let cannot = |e: io::Error| Failure::new(USAGE, format!("cannot remove the old {}: {e}", path.display()));
        return std::fs::remove_file(path).map_err(cannot);
    }
    Ok(())
}

/// The file of a unix socket, which goes with its server.
struct SocketFile(Option<PathBuf>);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone; a new server removes it, too.
        let _ = self.0.as_ref().map(std::fs::remove_file);
    }
}

fn bind_failure(address: &Endpoint, error: &io::Error) -> Failure {
    let (code, cause) = match (errno::name(error), address) {
        ("EADDRINUSE", Endpoint::Unix(_)) => {
            (USAGE, "something is there; stop its server, or give another path".into())
        }
        ("EADDRINUSE", _) => (USAGE, "address in use; stop the server that has it, or give another port".into()),
        ("EACCES", Endpoint::Unix(_)) => (USAGE, "permission denied; give a path in a folder of your own".into()),
        ("EACCES", _) => (USAGE, "permission denied; ports below 1024 are for root, give a higher one".into()),
        ("EADDRNOTAVAIL", _) => (USAGE, "this machine does not have that address; give one of its own".into()),
        ("EMFILE", _) => (MACHINE, "no descriptors left; raise `ulimit -n`".into()),
        _ if errno::is_machines(error) => (MACHINE, format!("this machine refuses it: {error}")),
        _ => (USAGE, error.to_string()),
    };
    Failure::new(code, format!("cannot listen on {address}: {cause}"))
}

fn warn_of_exposure(address: &Endpoint) {
    if !address.is_local() {
        tell(format_args!("warning: {address} can be reached from other machines, without authentication"));
    }
}

/// What is to be injected, and logged, if anything is.
fn injector(options: &Options) -> Result<Option<Arc<Injector>>, Failure> {
    let injection = options.injection();
    if injection.is_empty() && options.request_log.is_none() {
        return Ok(None);
    }
    if !options.protocol.shape.has_replies() {
        let what = "--service-time, --delay, --stall and --request-log are about requests";
        let message = format!("{what}, and {} is a one-way stream without any", options.protocol.name);
        return Err(Failure::new(USAGE, message));
    }
    let log = options.request_log.as_ref().map(|_| RequestLog::within(machine::available_memory_bytes())).transpose();
    let log = log.map_err(|e| Failure::new(MACHINE, e.to_string()))?;
    Ok(Some(Arc::new(Injector::new(&injection, log))))
}

type Handle = JoinHandle<io::Result<Counters>>;

/// What the threads share.
struct ThreadContext {
    signals: Arc<AtomicUsize>,
    ready: Sender<()>,
    injector: Option<Arc<Injector>>,
    /// With the store that they have in common.
    asked: ServerOptions,
    tls: Option<Settings>,
}

fn start(
    options: &Options,
    engine: &'static Engine,
    index: usize,
    listener: OwnedFd,
    context: ThreadContext,
) -> Result<Handle, Failure> {
    let ThreadContext { signals, ready, injector, asked, tls } = context;
    let protocol = options.protocol;
    let server = (protocol.server)(&asked).map_err(|e| Failure::new(USAGE, e))?;
    let cpu = options.cpus.as_ref().map(|list| list.0[index % list.0.len()]);
    let worker = Worker {
        listener,
        protocol: server,
        transport: protocol.transport,
        shape: protocol.shape,
        drain: options.drain,
        signals,
        ready,
        ring: options.ring.clone(),
        expected: options.expect / options.threads.max(1),
        injector,
        tls,
        deadlines: options.deadlines,
    };
    let run = engine.run;
    let body = move || {
        if let Some(cpu) = cpu {
            let explain = |e: io::Error| io::Error::new(e.kind(), format!("cannot pin a thread to CPU {cpu}: {e}"));
            affinity::pin(&[cpu]).map_err(explain)?;
        }
        if worker.injector.is_some() {
            process::precise_timers()?;
        }
        run(worker)
    };
    let thread = thread::Builder::new().name(format!("{}-{index}", engine.name));
    thread.spawn(body).map_err(|e| Failure::machine("cannot start a thread", &e))
}

/// The one line on stdout that says that clients may come, and where. Whoever started us waits for it, so that a server
/// which cannot say it has to end.
fn announce(address: &Endpoint) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let said = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush());
    said.map_err(|error| {
        let why = if inherited::output_was_closed() { "it is closed".to_owned() } else { error.to_string() };
        let message = format!("cannot say on standard output that it listens on {address}: {why}");
        Failure::new(UNWRITTEN, format!("{message}\n  help: send it to a file, or to /dev/null"))
    })
}

fn join(
    options: &Options,
    engine: &Engine,
    workers: Vec<Handle>,
    injector: Option<&Injector>,
) -> Result<ServerStats, Failure> {
    let mut releasing = Releasing::default();
    let mut total = ServerStats {
        schema: "loadgen.server/1".into(),
        engine: engine.name.into(),
        protocol: options.protocol.name.into(),
        threads: options.threads,
        ..ServerStats::default()
    };
    for worker in workers {
        let outcome = worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
        let counters = outcome.map_err(|e| Failure::machine(engine.name, &e))?;
        counters.add_to(&mut total, engine.wait_call);
        counters.releasing.iter().for_each(|of| releasing.merge(of));
    }
    memory::spend_reserve();
    total.injected = injector.map(|injector| injector.stats(&options.injection(), &releasing));
    stats::add_process(&mut total);
    Ok(total)
}

fn write_log(injector: &Injector, path: &Path) -> Result<(), Failure> {
    let Some(log) = injector.take_log() else { return Ok(()) };
    if log.dropped() > 0 {
        tell(format_args!("request log: {} requests beyond the first {} are missing", log.dropped(), log.rows()));
    }
    let written = write::atomically(path, |to| log.write_csv(to));
    let written = written.map_err(|e| log_unwritten(path, &e))?;
    written.warning().iter().for_each(tell);
    Ok(())
}

fn log_unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::new(UNWRITTEN, format!("cannot write the request log to {}: {error}", path.display()))
}

/// Known before the load comes, and not when it would be lost.
fn results_can_be_written(options: &Options) -> Result<(), Failure> {
    if let Some(path) = options.stats.as_deref().filter(|path| *path != "-") {
        write::probe(Path::new(path)).map_err(|e| stats_unwritten(path, &e))?;
    }
    options.request_log.as_deref().map_or(Ok(()), |path| write::probe(path).map_err(|e| log_unwritten(path, &e)))
}

fn stats_unwritten(path: &str, error: &io::Error) -> Failure {
    Failure::new(UNWRITTEN, format!("cannot write statistics to {path}: {error}"))
}

fn write_stats(stats: &ServerStats, path: &str) -> Result<(), Failure> {
    let text = pretty(stats);
    if path == "-" {
        return stdout::write(&text).map_err(|e| stats_unwritten("standard output", &e));
    }
    let written = write::json_atomically(Path::new(path), &text).map_err(|e| stats_unwritten(path, &e))?;
    written.warning().iter().for_each(tell);
    Ok(())
}
