//! The addresses of guests. Each guest has a network of its own, made by QEMU in user mode: no rights are needed,
//! nobody else on the host is in it, and the host's loopback address is its gateway.
//!
//! Pods have addresses of the same network. The guest answers for them, so the gateway reaches them without any
//! translation of addresses, and a port of the host can be forwarded to a pod.

use std::net::Ipv4Addr;

/// The network, in the notation of QEMU. It overlaps neither the Services of the control plane nor the pods of
/// simulated nodes.
pub(crate) const NETWORK: &str = "10.200.0.0/16";
/// The length of its prefix.
pub(crate) const PREFIX: u8 = 16;
/// What a guest reaches the host's loopback address at; the API server's certificate is valid for it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// Where QEMU answers for names of the host's resolver. Nothing here asks.
pub(super) const DNS: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 3);
/// Nobody asks QEMU for an address either; by default it would be in the way.
pub(super) const DHCP: Ipv4Addr = Ipv4Addr::new(10, 200, 255, 10);

/// The addresses of one guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Of the node.
    pub(crate) node: Ipv4Addr,
    /// The first of its pods' /24.
    pods: Ipv4Addr,
}

impl Addresses {
    /// Those of the guest with a number; two guests whose numbers are less than 200 apart differ.
    pub(crate) fn numbered(number: u32) -> Self {
        // Fits: it is below 200.
        let number = u8::try_from(number % 200).unwrap_or_default() + 1;
        Self { node: Ipv4Addr::new(10, 200, 0, 10 + number), pods: Ipv4Addr::new(10, 200, number, 0) }
    }

    /// The network of its pods in CIDR notation.
    pub(crate) fn pod_network(self) -> String {
        format!("{}/24", self.pods)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Addresses, GATEWAY};

    #[test]
    fn guests_differ_from_each_other_and_from_the_gateway() {
        let all: Vec<Addresses> = (0..200).map(Addresses::numbered).collect();
        let nodes: BTreeSet<_> = all.iter().map(|addresses| addresses.node).collect();
        let pods: BTreeSet<_> = all.iter().map(|addresses| addresses.pod_network()).collect();
        assert_eq!((nodes.len(), pods.len()), (200, 200));
        assert!(!nodes.contains(&GATEWAY) && !pods.contains("10.200.0.0/24"));
    }
}
