//! Who has which address: everything of one testbed lies in one 10.B.0.0/16.
//!
//! ```text
//! 10.B.0.1        the bridge in the root namespace: where a hub under test listens
//! 10.B.0.5        hub (API server, etcd, controller-manager)   10.B.0.6   lab (Consul)
//! 10.B.0.10+i     member i: API server :6443, registry :5000, kubelet, node ports
//! 10.B.(100+i).0/24 its pods     10.B.(180+i).0/24 its services (.1 kubernetes, .10 DNS)
//! ```
//! In: the block and the members. Out: addresses and names. Never touches the machine.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::spec::MemberSpec;

/// The most members that fit a block.
pub const MEMBERS_MAX: usize = 60;
/// The API servers' port.
pub const API_PORT: u16 = 6443;
/// The registries' port.
pub const REGISTRY_PORT: u16 = 5000;
/// Consul's DNS port.
pub const CONSUL_DNS_PORT: u16 = 8600;

/// The second octet of a testbed's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Block(pub u8);

impl Block {
    /// The blocks a testbed may take, in the order in which the checkout with that hash tries them.
    pub fn candidates(hash: u64) -> impl Iterator<Item = Self> {
        (0..120).map(move |n| Self(100 + u8::try_from((hash + n) % 120).expect("less than 120")))
    }

    /// The address of the bridge in the root namespace.
    #[must_use]
    pub const fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, 0, 1)
    }

    /// The real API server for a hub.
    #[must_use]
    pub const fn hub(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, 0, 5)
    }

    /// Consul.
    #[must_use]
    pub const fn lab(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, 0, 6)
    }

    /// The whole range, as `ip route` writes it.
    #[must_use]
    pub fn range(self) -> String {
        format!("10.{}.0.0/16", self.0)
    }

    /// The prefix of every interface and namespace.
    #[must_use]
    pub fn prefix(self) -> String {
        format!("atb{}", self.0)
    }

    /// The network namespace of a member, of hub or of lab.
    #[must_use]
    pub fn namespace(self, name: &str) -> String {
        format!("{}-{name}", self.prefix())
    }
}

/// A member with its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberPlan {
    /// What was asked.
    pub spec: MemberSpec,
    /// The block of its testbed.
    pub block: Block,
    /// Its place in the list.
    pub index: u8,
    /// The member whose ranges it uses: itself, unless it overlaps another.
    pub range_index: u8,
}

impl MemberPlan {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its node's address.
    #[must_use]
    pub const fn node(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.block.0, 0, 10 + self.index)
    }

    /// Its node's name.
    #[must_use]
    pub fn node_name(&self) -> String {
        format!("{}-1", self.spec.name)
    }

    /// The range of its pods.
    #[must_use]
    pub fn pods(&self) -> String {
        format!("10.{}.{}.0/24", self.block.0, 100 + self.range_index)
    }

    /// The range of its services.
    #[must_use]
    pub fn services(&self) -> String {
        format!("10.{}.{}.0/24", self.block.0, 180 + self.range_index)
    }

    /// The service `kubernetes`.
    #[must_use]
    pub const fn kubernetes(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.block.0, 180 + self.range_index, 1)
    }

    /// The service `kube-dns`.
    #[must_use]
    pub const fn dns(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.block.0, 180 + self.range_index, 10)
    }

    /// The registry's host and port.
    #[must_use]
    pub fn registry(&self) -> String {
        format!("{}:{REGISTRY_PORT}", self.node())
    }

    /// Whether others have routes to its pods and services.
    #[must_use]
    pub fn routed(&self) -> bool {
        self.spec.routed && self.index == self.range_index
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> String {
        self.block.namespace(&self.spec.name)
    }
}

/// Gives each member its place.
///
/// # Errors
/// Too many members, or one that overlaps a member that is not there.
pub fn plan(block: Block, specs: &[MemberSpec]) -> Result<Vec<MemberPlan>> {
    if specs.len() > MEMBERS_MAX {
        return Err(Error::Refused(format!("{} members asked, {MEMBERS_MAX} fit", specs.len())));
    }
    let place = |name: &str| specs.iter().position(|spec| spec.name == name);
    let octet = |place: usize| u8::try_from(place).expect("less than MEMBERS_MAX");
    specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            let range = match &spec.overlaps {
                None => index,
                Some(other) => place(other).ok_or_else(|| {
                    Error::Refused(format!("member `{}` overlaps `{other}`, which is not a member", spec.name))
                })?,
            };
            Ok(MemberPlan { spec: spec.clone(), block, index: octet(index), range_index: octet(range) })
        })
        .collect()
}
