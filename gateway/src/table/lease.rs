//! Addresses of the pool for Services of type LoadBalancer: what one has it keeps, then what it wishes for, then the first free ones. Pure.
//!
//! In: what Services ask for, what Gateways hold already. Out: addresses for each, one of each family that it wants, or why not. One address serves
//! one Service, or several of a namespace that say so by the same key and have no port in common (as MetalLB has it); never a Gateway, too. What a
//! Service wishes for is not taken from who has it. Members' Services come after the hub's, whatever they say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use atoll_api::topology::Family;
use ipnet::IpNet;

use super::address::{Given, contains, hosts};
use super::backend::Problem;
use super::front::Port;
use crate::balancer::Balanced;

/// Addresses looked at until a free one is found.
const LOOKED_MAX: usize = 1 << 16;

/// Who has which address.
#[derive(Debug, Default)]
pub(super) struct Held {
    by: BTreeMap<IpAddr, Holder>,
}

#[derive(Debug)]
struct Holder {
    /// For people.
    who: String,
    /// With whom it shares, and the ports that are taken.
    shares: Option<(String, BTreeSet<Port>)>,
}

impl Held {
    /// A Gateway has it.
    pub(super) fn gateway(&mut self, ip: IpAddr, who: &str) -> bool {
        let free = !self.by.contains_key(&ip);
        if free {
            self.by.insert(ip, Holder { who: format!("Gateway `{who}`"), shares: None });
        }
        free
    }

    /// Who has it.
    pub(super) fn holder(&self, ip: IpAddr) -> Option<&str> {
        self.by.get(&ip).map(|holder| holder.who.as_str())
    }

    /// A Service takes it, where it is free or shared with it.
    fn service(&mut self, ip: IpAddr, balanced: &Balanced) -> bool {
        let ports = || balanced.facts.ports.iter().map(|p| (p.protocol == "UDP", p.port)).collect::<BTreeSet<Port>>();
        let key = balanced.shares();
        match (self.by.get_mut(&ip), key) {
            (None, key) => {
                let shares = key.map(|key| (key, ports()));
                self.by.insert(ip, Holder { who: format!("Service `{}`", place(balanced)), shares });
                true
            }
            (Some(Holder { shares: Some((theirs, taken)), .. }), Some(key)) if *theirs == key => {
                let ports = ports();
                let fits = taken.is_disjoint(&ports);
                if fits {
                    taken.extend(ports);
                }
                fits
            }
            _ => false,
        }
    }

    /// The addresses that a Service may share, in order.
    fn shared(&self, key: &str) -> Vec<IpAddr> {
        let with = |holder: &Holder| holder.shares.as_ref().is_some_and(|(theirs, _)| theirs == key);
        self.by.iter().filter(|(_, holder)| with(holder)).map(|(ip, _)| *ip).collect()
    }
}

/// A Service for people: `cluster/namespace/name`, or without the cluster.
fn place(balanced: &Balanced) -> String {
    match &balanced.cluster {
        Some(cluster) => format!("{cluster}/{}", balanced.service),
        None => balanced.service.to_string(),
    }
}

/// A Service keeps of what it had what it may.
pub(super) fn keep(pool: &[IpNet], balanced: &Balanced, had: &[IpAddr], held: &mut Held) -> Vec<IpAddr> {
    let mut own: Vec<IpAddr> = Vec::new();
    for ip in had {
        let is_new = !own.iter().any(|other| Family::of(*other) == Family::of(*ip));
        if is_new && contains(pool, *ip) && fits(balanced, *ip) && held.service(*ip, balanced) {
            own.push(*ip);
        }
    }
    own
}

/// Whether an address is one that the Service wishes for, and of its families.
fn fits(balanced: &Balanced, ip: IpAddr) -> bool {
    let facts = &balanced.facts;
    let wished = facts.wishes.is_empty() || facts.wishes.contains(&ip);
    wished && (facts.families.is_empty() || facts.families.contains(&Family::of(ip)))
}

/// Gives a Service its addresses; `own` is what it keeps.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) fn give(pool: &[IpNet], balanced: &Balanced, mut own: Vec<IpAddr>, held: &mut Held) -> Given {
    let facts = &balanced.facts;
    if let Some(odd) = &facts.odd {
        return Err(Problem::new("InvalidService", odd.clone()));
    }
    if !facts.wishes.is_empty() {
        for wish in facts.wishes.iter().filter(|wish| !own.contains(wish)) {
            if !contains(pool, *wish) {
                return Err(Problem::new(
                    "AddressNotInPool",
                    format!("address {wish} is not in gateway.addresses: wish for one of the pool, or widen it"),
                ));
            }
            if !held.service(*wish, balanced) {
                let who = held.holder(*wish).unwrap_or_default();
                return Err(Problem::new(
                    "AddressTaken",
                    format!(
                        "{who} has address {wish}: wish for another, or share it (annotation atoll.dev/allow-shared-ip, other ports)"
                    ),
                ));
            }
        }
        return Ok(facts.wishes.clone());
    }
    let has = |family: Family| pool.iter().any(|range| Family::of(range.addr()) == family);
    let wanted = match facts.families.as_slice() {
        [] => vec![if has(Family::IPv4) { Family::IPv4 } else { Family::IPv6 }],
        said => said.to_vec(),
    };
    let mut full = None;
    for family in wanted {
        if own.iter().any(|ip| Family::of(*ip) == family) {
            continue;
        }
        let of_family = || pool.iter().filter(move |range| Family::of(range.addr()) == family);
        let shared = balanced.shares().map(|key| held.shared(&key)).unwrap_or_default();
        let shared = shared.into_iter().filter(|ip| Family::of(*ip) == family && contains(pool, *ip));
        let free = of_family().flat_map(hosts).take(LOOKED_MAX);
        match shared.chain(free).find(|ip| held.service(*ip, balanced)) {
            Some(ip) => own.push(ip),
            None => full = full.or(Some(family)),
        }
    }
    match full {
        Some(family) if own.is_empty() || facts.needs_all => Err(Problem::new(
            "PoolExhausted",
            format!(
                "no {family:?} address of gateway.addresses is free: widen the pool, or delete Services and Gateways that have one"
            ),
        )),
        _ => Ok(own),
    }
}

#[cfg(test)]
mod tests;
