//! How late an engine wakes from a timed wait: the part of the generator's lag that nobody can program away.

use super::{Engine, Handler, Io};
use loadgen_core::histogram::Recorder;
use loadgen_core::sys::{clock, ring};
use std::io;
use std::time::Duration;

/// So many waits, each of that length, on an engine with these options.
#[derive(Debug)]
pub struct Waits {
    pub count: u32,
    pub length_ns: u64,
    pub ring: ring::Options,
}

/// Waits as a worker does: with the engine, and again where it woke too early. What is recorded is how late.
pub(super) fn measure(mut engine: impl Engine, waits: &Waits) -> io::Result<Recorder> {
    let mut late = Recorder::new();
    for _ in 0..waits.count {
        let due = clock::now().after(waits.length_ns);
        let woke = loop {
            let now = clock::now();
            if now >= due {
                break now;
            }
            engine.turn(Duration::from_nanos(due.since(now)), &mut Nobody)?;
        };
        late.record(woke.since(due));
    }
    Ok(late)
}

/// There is no connection of which anything could be told.
struct Nobody;

impl<I: Io> Handler<I> for Nobody {
    fn connected(&mut self, _: &mut I, _: u32, _: io::Result<()>) {}

    fn received(&mut self, _: &mut I, _: u32, _: &[u8]) {}

    fn writable(&mut self, _: &mut I, _: u32) {}

    fn not_taken(&mut self, _: i64) {}

    fn ended(&mut self, _: &mut I, _: u32, _: Option<io::Error>) {}
}
