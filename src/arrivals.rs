//! When a request is due. This is pacing only: it knows neither when a run stops nor what latency means.

use crate::time::Instant;

/// How the requests of a run are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// The next request on a connection is due the moment the reply before it arrived.
    Closed,
}

impl Arrivals {
    /// The intended send time of the request that follows a reply which arrived at `reply`.
    pub fn next_due(self, reply: Instant) -> Instant {
        match self {
            Self::Closed => reply,
        }
    }

    /// The word in a report's `scenario.mode`.
    pub fn mode(self) -> &'static str {
        match self {
            Self::Closed => "closed",
        }
    }
}
