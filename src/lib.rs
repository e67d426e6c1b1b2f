//! What `loadgen` and `loadgen-server` share. In reading order:
//!
//! Pure: no clock, no socket, no thread, no `unsafe`. Time and bytes arrive as arguments.
//! - [`units`]: what people type (`10k`, `64KiB`, `250us`) and what they read
//! - [`url`]: where the parts of a URL end
//! - [`secrets`]: what of a text must not be shown
//! - [`time`]: instants in nanoseconds
//! - [`encoding`]: text files with byte order marks, and those that are not UTF-8
//! - [`rng`]: seeded randomness
//! - [`arrivals`]: when a request is due
//! - [`service_time`]: service times that a server injects: distributions, the queue, stalls
//! - [`histogram`]: record, merge, quantiles, encoding
//! - [`handshake`]: what was agreed on with servers before a protocol had its turn
//! - [`confidence`]: how much of a run's figures is chance, and whether it was steady
//! - [`protocol`]: what is said on a connection, both halves, and the `PROTOCOLS` table
//! - [`scenario`]: scenario files: which requests a load consists of
//! - [`tls`]: TLS under any of them
//! - [`engine`]: what a load may ask of an engine, and is told
//! - [`load`]: who asks what when, and what became of it
//! - [`result`]: the report file
//! - [`metric`]: the figures by which a run is judged, and the `METRICS` table
//! - [`limit`]: limits on them (`--fail-if`)
//! - [`compare`]: whether two versions differ, from the figures of their runs
//! - [`search`]: the highest rate at which limits hold: the procedure and its statistics
//! - [`report`]: a report in other formats, and the `FORMATS` table
//!
//! Effects:
//! - [`files`]: files that are read within bounds; standard output; what killed processes left
//! - [`machine`]: what this machine is, and the kernel's counters
//! - [`sys`]: system calls; the only `unsafe` code of the project

#![deny(unsafe_code)]

pub mod arrivals;
pub mod compare;
pub mod confidence;
pub mod encoding;
pub mod engine;
pub mod files;
pub mod handshake;
pub mod histogram;
pub mod limit;
pub mod load;
pub mod machine;
pub mod metric;
pub mod protocol;
pub mod report;
pub mod result;
pub mod rng;
pub mod scenario;
pub mod search;
pub mod secrets;
pub mod service_time;
pub mod sys;
pub mod time;
pub mod tls;
pub mod transport;
pub mod units;
pub mod url;
