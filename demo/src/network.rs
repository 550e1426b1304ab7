//! Where a demo member's pods and services live: two networks of its own in 127/8, which Linux answers without being asked.

use std::net::{IpAddr, Ipv4Addr};

/// Members fit into the octets that we take: 127.100/16 … and 127.200/16 ….
pub const INDEX_MAX: u8 = 49;

/// The networks of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Network {
    pods: u8,
    services: u8,
}

impl Network {
    /// Those of member number `index`, which is at most [`INDEX_MAX`].
    pub fn of(index: u8) -> Self {
        let index = index.min(INDEX_MAX);
        Self { pods: 100 + index, services: 200 + index }
    }

    /// All pods.
    pub fn pod_cidr(self) -> String {
        format!("127.{}.0.0/16", self.pods)
    }

    /// The pods of node number `node`.
    pub fn node_cidr(self, node: u8) -> String {
        format!("127.{}.{node}.0/24", self.pods)
    }

    /// All services.
    pub fn service_cidr(self) -> String {
        format!("127.{}.0.0/16", self.services)
    }

    /// A pod on node number `node`.
    pub fn pod(self, node: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.pods, node, host)
    }

    /// A fixed address of the member's own.
    pub fn service(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.services, 0, host)
    }

    /// Whether the address is the member's.
    pub fn contains(self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        ip.octets()[0] == 127 && [self.pods, self.services].contains(&ip.octets()[1])
    }
}
