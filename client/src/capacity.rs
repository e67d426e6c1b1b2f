//! How many connections this machine can carry, and what sets the bound.

use crate::plan::{CONNECTIONS_A_SOURCE, LOOPBACK_SOURCES};
use crate::preflight::{DESCRIPTORS_BESIDE, DESCRIPTORS_BESIDE_RINGS, KERNEL_BYTES_AN_END, USER_BYTES_A_CONNECTION};
use loadgen_core::machine;
use loadgen_core::sys::limits;

/// What there is of everything that a connection needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means {
    /// The hard limit of descriptors: loadgen raises the soft one by itself.
    pub descriptors: u64,
    /// Local ports for each source address.
    pub ports: u64,
    pub memory_bytes: u64,
}

/// A number of connections, and what it is that there is no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub connections: u64,
    pub by: &'static str,
}

impl Means {
    pub fn read() -> Self {
        let (low, high) = machine::local_port_range();
        Self {
            descriptors: limits::descriptors().map_or(0, |(_, hard)| hard),
            ports: u64::from(high.saturating_sub(low)) + 1,
            memory_bytes: machine::available_memory_bytes().unwrap_or(u64::MAX),
        }
    }

    /// Connections that descriptors suffice for; with rings, each of which has a table as long as the limit.
    pub fn by_descriptors(&self, rings: bool) -> u64 {
        if rings {
            self.descriptors.saturating_sub(DESCRIPTORS_BESIDE_RINGS).saturating_mul(self.descriptors)
        } else {
            self.descriptors.saturating_sub(DESCRIPTORS_BESIDE)
        }
    }

    /// Connections that ports suffice for: to this machine from many loopback addresses, to another from one.
    pub fn by_ports(&self, loopback: bool) -> u64 {
        if loopback { LOOPBACK_SOURCES * self.ports.min(CONNECTIONS_A_SOURCE) } else { self.ports }
    }

    /// Connections that memory suffices for, by what one took on the machine where that was measured: a guess.
    pub fn by_memory(&self, loopback: bool) -> u64 {
        let ends = if loopback { 2 } else { 1 };
        self.memory_bytes / (ends * KERNEL_BYTES_AN_END + USER_BYTES_A_CONNECTION)
    }

    pub fn bound(&self, loopback: bool, rings: bool) -> Bound {
        let all = [
            (self.by_descriptors(rings), "descriptors"),
            (self.by_ports(loopback), "local ports"),
            (self.by_memory(loopback), "memory, a guess"),
        ];
        let (connections, by) = all.into_iter().min_by_key(|(connections, _)| *connections).unwrap_or_default();
        Bound { connections, by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcest_is_the_bound() {
        let means = Means { descriptors: 20_000, ports: 28_232, memory_bytes: 24 << 30 };
        let of = |loopback, rings| {
            let bound = means.bound(loopback, rings);
            (bound.connections, bound.by)
        };
        assert_eq!(of(true, false), (19_936, "descriptors"));
        assert_eq!(of(false, false), (19_936, "descriptors"));
        assert_eq!(of(false, true), (28_232, "local ports"));
        let (connections, by) = of(true, true);
        assert!(by.starts_with("memory") && (2_000_000..3_000_000).contains(&connections), "{connections}");
        let none = Means { descriptors: 0, ports: 1, memory_bytes: 0 };
        assert_eq!((none.bound(true, true).connections, none.by_descriptors(false)), (0, 0));
    }

    #[test]
    fn this_machine_has_some_of_everything() {
        let means = Means::read();
        assert!(means.descriptors > 0 && means.ports > 0 && means.memory_bytes > 0);
    }
}
