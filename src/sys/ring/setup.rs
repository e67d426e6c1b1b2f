//! Making a ring: the flags that the kernel will take, and a check that it does what it says.

use super::buffers::Buffers;
use super::leases::Leases;
use super::options::Options;
use super::queues::{OwnedUring, Ring, RingCounters};
use super::refusal::Refusal;
use super::submit::{BUFFER_GROUP, Bounds, bounded};
use super::token::SLOTS_MAX;
use crate::machine;
use crate::sys::limits;
use crate::units::format_size;
use io_uring::{Builder, IoUring, Probe, cqueue, opcode, squeue};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;

/// Completions that fit in the queue, where nothing else is said. Of deferred work the kernel does a bounded portion in
/// one enter (20 items, Linux 6.18), so that this need not grow with the connections.
const COMPLETIONS: u32 = 4096;
/// Where a kernel thread fills the queue at any time, it has to hold what comes while we are busy elsewhere.
const COMPLETIONS_POLLED: u32 = 65536;

/// Operations without which there is nothing to do here. The youngest, BIND, is of Linux 6.11.
const NEEDED: &[(&str, u8)] = &[
    ("IORING_OP_ACCEPT", opcode::AcceptMulti::CODE),
    ("IORING_OP_RECV", opcode::RecvMulti::CODE),
    ("IORING_OP_SEND", opcode::Send::CODE),
    ("IORING_OP_SOCKET", opcode::Socket::CODE),
    ("IORING_OP_CONNECT", opcode::Connect::CODE),
    ("IORING_OP_ASYNC_CANCEL", opcode::AsyncCancel2::CODE),
    ("IORING_OP_CLOSE", opcode::Close::CODE),
    ("IORING_OP_URING_CMD", opcode::SetSockOpt::CODE),
    ("IORING_OP_FIXED_FD_INSTALL", opcode::FixedFdInstall::CODE),
    ("IORING_OP_BIND", opcode::Bind::CODE),
];

/// IOU_PBUF_RING_INC of `<linux/io_uring.h>` (Linux 6.12).
const INCREMENTAL: u16 = 2;

impl Ring {
    /// A ring with room for `sockets` sockets (fewer, where the descriptor limit is lower), and its buffers.
    pub fn new(sockets: u32, options: &Options) -> Result<(Self, Buffers), Refusal> {
        let (mut uring, mut setup) = build(options).map_err(|error| Refusal::of("io_uring_setup", &error))?;
        setup.extend(options.describe());
        check_features(&uring, options)?;
        let limit = limits::descriptors().map_or(u64::MAX, |(soft, _)| soft);
        let table = u64::from(sockets.min(SLOTS_MAX)).min(limit) as u32;
        if !options.inline_send {
            let registered = uring.submitter().register_files_sparse(table);
            registered.map_err(|error| Refusal::of("io_uring_register (file table)", &error))?;
        }
        let no_memory = |error: io::Error| {
            let size = format_size(u64::from(options.buffers) * u64::from(options.buffer_bytes));
            Refusal::new(
                format!("{size} for buffers to receive into: {error}"),
                "give fewer or smaller ones (buffers=NxBYTES)",
            )
        };
        let buffers = Buffers::new(options.buffers, options.buffer_bytes).map_err(no_memory)?;
        let region = Rc::clone(buffers.region());
        let flags = if options.incremental { INCREMENTAL } else { 0 };
        // SAFETY: the region begins with a page-aligned ring of that many entries, and lives until the ring is closed:
        // the Ring holds it too.
        let registered = unsafe {
            uring.submitter().register_buf_ring_with_flags(region.address(), region.count(), BUFFER_GROUP, flags)
        };
        registered.map_err(|error| Refusal::of("io_uring_register (receive buffers)", &error))?;
        let no_iowait = uring.params().is_feature_no_iowait();
        let limits_receives = options.receive_limit > 0 && limits_receives(&mut uring);
        if limits_receives {
            setup.push(format!("receive-limit={}", options.receive_limit));
        }
        let ring = Self {
            uring: OwnedUring(Some(uring)),
            region,
            leases: Leases::default(),
            addresses: HashMap::new(),
            backlog: VecDeque::new(),
            early: VecDeque::new(),
            done: Vec::new(),
            in_flight: 0,
            remotes: Vec::new(),
            verify: false,
            reset_on_close: false,
            ports: machine::local_port_range(),
            options: Options {
                receive_limit: if limits_receives { options.receive_limit } else { 0 },
                ..options.clone()
            },
            table,
            no_iowait,
            refused: 0,
            setup,
            datagram_shape: None,
            counters: RingCounters::default(),
        };
        Ok((ring, buffers))
    }
}

/// Asks for everything, and for less where the kernel is too old for that.
fn build(options: &Options) -> io::Result<(IoUring, Vec<String>)> {
    let mut last = None;
    for no_array in [true, false] {
        let mut builder: Builder<squeue::Entry, cqueue::Entry> = IoUring::builder();
        let mut flags = vec!["SUBMIT_ALL", "CQSIZE", "CLAMP", "SINGLE_ISSUER"];
        let completions = options.completions.unwrap_or(COMPLETIONS);
        builder.setup_submit_all().setup_cqsize(completions).setup_clamp().setup_single_issuer();
        match options.sqpoll_idle_ms {
            Some(idle_ms) => {
                builder.setup_sqpoll(idle_ms).setup_cqsize(options.completions.unwrap_or(COMPLETIONS_POLLED));
                flags.push("SQPOLL");
            }
            None => {
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_defer_taskrun();
                flags.extend(["COOP_TASKRUN", "TASKRUN_FLAG", "DEFER_TASKRUN"]);
            }
        }
        if no_array {
            builder.setup_no_sqarray();
            flags.push("NO_SQARRAY");
        }
        // The submission queue must not be larger than the completion queue.
        let submissions = options.submissions.min(options.completions.unwrap_or(u32::MAX));
        match builder.build(submissions) {
            Ok(uring) => return Ok((uring, flags.into_iter().map(str::to_owned).collect())),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::InvalidInput.into()))
}

/// Whether receives can be told how much to take, at once and in all: on a slot without a socket, a kernel that can
/// says that the socket is missing (EBADF), another that it does not understand (EINVAL).
fn limits_receives(uring: &mut IoUring) -> bool {
    let entry = opcode::RecvMulti::new(io_uring::types::Fixed(0), BUFFER_GROUP).build();
    let entry = bounded(entry, Bounds::within(2, 2, false));
    // SAFETY: the entry points to no memory.
    let pushed = unsafe { uring.submission().push(&entry) };
    if pushed.is_err() || uring.submit_and_wait(1).is_err() {
        return false;
    }
    let results: Vec<i32> = uring.completion().map(|entry| entry.result()).collect();
    results == [-libc::EBADF]
}

fn check_features(uring: &IoUring, options: &Options) -> Result<(), Refusal> {
    let features = uring.params();
    let mut needed = vec![
        ("IORING_FEAT_NODROP", features.is_feature_nodrop()),
        ("IORING_FEAT_EXT_ARG", features.is_feature_ext_arg()),
        ("IORING_FEAT_FAST_POLL", features.is_feature_fast_poll()),
    ];
    if options.bundles {
        needed.push(("IORING_FEAT_RECVSEND_BUNDLE", features.is_feature_recvsend_bundle()));
    }
    if options.min_wait_us > 0 {
        needed.push(("IORING_FEAT_MIN_TIMEOUT", features.is_feature_min_timeout()));
    }
    let mut probe = Probe::new();
    let probed = uring.submitter().register_probe(&mut probe);
    probed.map_err(|error| Refusal::of("io_uring_register (probe)", &error))?;
    needed.extend(NEEDED.iter().map(|(name, code)| (*name, probe.is_supported(*code))));
    match needed.iter().find(|(_, there)| !there) {
        Some((name, _)) => Err(Refusal::too_old(name)),
        None => Ok(()),
    }
}
