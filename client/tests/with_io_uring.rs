//! The suites of the client once more, on engine io_uring: the same requests, faults and outages, the same ledger.

#![allow(clippy::duplicate_mod)] // each suite brings the common parts along

#[path = "early.rs"]
mod early;
#[path = "faults.rs"]
mod faults;
#[path = "ledger.rs"]
mod ledger;
#[path = "memcached.rs"]
mod memcached;
#[path = "nginx.rs"]
mod nginx;
#[path = "open.rs"]
mod open;
#[path = "outages.rs"]
mod outages;
#[path = "scenario.rs"]
mod scenario;
#[path = "scenario_files.rs"]
mod scenario_files;
#[path = "targets.rs"]
mod targets;
#[path = "tls.rs"]
mod tls;
#[path = "traffic.rs"]
mod traffic;

#[path = "hostile.rs"]
mod hostile;
#[path = "redis.rs"]
mod redis;
