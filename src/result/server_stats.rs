//! What a server of ours counted.

use super::{Histogram, Machine, RingStats};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `loadgen-server --stats` writes: counters of all its threads, since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerStats {
    /// `loadgen.server/1`.
    pub schema: String,
    pub engine: String,
    pub protocol: String,
    pub threads: u64,
    pub accepts: u64,
    /// Failed accepts by errno name (`EMFILE`).
    pub accept_errors: BTreeMap<String, u64>,
    /// Connections turned away because no descriptor was left for them.
    pub rejected: u64,
    /// Closed connections by cause: `peer` (it ended its stream), `reset`, `error`, `answered` (the protocol said so),
    /// `protocol_error`, `drained` (shutdown), `cut` (shutdown, and it did not end in time), `deadline_…` (`first`,
    /// `handshake`, `head`, `body`, `unread`, `idle`: it took too long over that), `made_room` (it was silent when no
    /// descriptor was left for others).
    pub closes: BTreeMap<String, u64>,
    /// Requests received whole.
    pub requests: u64,
    /// Replies whose last byte was handed to the kernel.
    pub replies: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// System calls by name.
    pub syscalls: BTreeMap<String, u64>,
    /// Sends that the kernel took only a part of, or nothing of.
    pub short_sends: u64,
    /// Receives that found nothing.
    pub empty_receives: u64,
    /// Events for connections that were gone.
    pub stale_events: u64,
    pub waits: u64,
    pub events: u64,
    /// Waits by how many events they returned: 0, 1, 2-3, 4-7, … 256-511, 512 and more.
    pub events_per_wait: Vec<u64>,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub memory_peak_bytes: u64,
    /// Why this engine and not the one asked for (`--engine auto`); null: as asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// What runs in place of a system call that this kernel, or a sandbox, does not offer, and why; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Engine `io_uring` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStats>,
    /// Only over UDP, where a request is a datagram received and a reply one sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagrams: Option<DatagramStats>,
    /// Only where service times were injected, or requests logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injected: Option<InjectedStats>,
    /// Only where the stream is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStats>,
    /// The machine that it ran on. Within a report it is under `environment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

/// What a server over UDP counted besides: `requests` = `replies` + all of `dropped`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatagramStats {
    /// Replies that were not sent, by why: the errno name of the send, `truncated` (the request was longer than any
    /// datagram can be), `cut` (shutdown, and they could not leave in time).
    pub dropped: BTreeMap<String, u64>,
    /// Receives that failed, by errno name: the kernel tells that way what became of earlier replies.
    pub receive_errors: BTreeMap<String, u64>,
    /// Datagrams that arrived, and that the kernel threw away for want of room; they are no requests.
    pub kernel_dropped: u64,
    /// Datagrams that had arrived, and that nobody had read when the time for the last replies was over; they are no
    /// requests. Absent in older files.
    #[serde(default)]
    pub unread: u64,
    /// Room for datagrams that arrive faster than they are answered, in the kernel's own measure, of each thread.
    pub receive_buffer_bytes: u64,
}

/// What `loadgen-server` injected (docs/server.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InjectedStats {
    /// The distribution, as `fixed:1ms`; null: none, as with the next two.
    pub service_time: Option<String>,
    pub delay: Option<String>,
    pub stall: Option<String>,
    pub seed: u64,
    /// Requests that a stall held back.
    pub stalled: u64,
    /// How long after its intended release the last byte of a reply was handed to the kernel.
    pub overrun: Option<Histogram>,
    /// Time that threads looked for events without sleeping, because a release was near.
    pub spin_ns: u64,
    /// Rows of `--request-log`, and requests that found no room in it.
    pub logged: u64,
    pub log_dropped: u64,
}

/// What `loadgen-server` counted about TLS (docs/tls.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsStats {
    /// Handshakes that came to their end, with a certificate, and by resuming an earlier session.
    pub handshakes_full: u64,
    pub handshakes_resumed: u64,
    /// Connections that failed, by what went wrong, such as `tls_alert`, `tls_protocol`, `tls_truncated`.
    pub failures: BTreeMap<String, u64>,
    /// Sessions by version, `1.2` or `1.3`.
    pub versions: BTreeMap<String, u64>,
    /// Sessions by cipher, as IANA calls it.
    pub ciphers: BTreeMap<String, u64>,
    /// Streams of clients that ended without saying that they would (close_notify). That is no error here.
    pub truncated: u64,
}
