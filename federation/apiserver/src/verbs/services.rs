//! Addresses and node ports of Services. In: a Service to be written; out: the same with what it lacks, and a hold on
//! the numbers until it is stored. What is taken is read from the stored Services: there is no second book.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    sync::{MutexGuard, PoisonError},
};

use serde_json::Value;

use super::Call;
use crate::{
    object::text,
    refusal::{Cause, Refusal},
    server::Inner,
};

/// Gives a Service the addresses and ports that it lacks.
pub(super) fn assign(call: &Call<'_>, service: &mut Value) -> Result<(), Refusal> {
    let kind = text(service, &["spec", "type"]).to_owned();
    if kind == "ExternalName" {
        return Ok(());
    }
    let server = call.server;
    let mut given = given(server);
    let (addresses, ports) = taken(server);
    let asked = text(service, &["spec", "clusterIP"]).to_owned();
    if asked.is_empty() {
        let address = free_address(&server.config.service_cidr, &addresses, &given.addresses)
            .ok_or_else(|| Refusal::internal("failed to allocate a serviceIP: range is full"))?;
        given.note_address(address);
        service["spec"]["clusterIP"] = address.to_string().into();
        service["spec"]["clusterIPs"] = vec![address.to_string()].into();
    } else if service.pointer("/spec/clusterIPs").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        service["spec"]["clusterIPs"] = vec![asked].into();
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        let range = server.config.node_ports.clone();
        for port in service.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if port.get("nodePort").and_then(Value::as_u64).unwrap_or(0) == 0 {
                let free = range.clone().find(|p| !ports.contains(p) && !given.ports.contains(p));
                let free = free.ok_or_else(|| Refusal::internal("failed to allocate a nodePort: range is full"))?;
                given.note_port(free);
                port["nodePort"] = free.into();
            }
        }
    }
    Ok(())
}

/// An address that a Service asks for and another one has.
pub(super) fn check_address(call: &Call<'_>, service: &Value) -> Option<Cause> {
    let asked = text(service, &["spec", "clusterIP"]).parse().ok()?;
    let (addresses, _) = taken(call.server);
    addresses.contains(&asked).then(|| {
        let why = "failed to allocate IP: provided IP is already allocated";
        Cause::invalid("spec.clusterIPs", &service["spec"]["clusterIPs"], why)
    })
}

/// Recently given numbers, oldest first: they may not be stored yet.
#[derive(Debug, Default)]
pub(crate) struct Given {
    addresses: Vec<Ipv4Addr>,
    ports: Vec<u16>,
}

const GIVEN_MAX: usize = 1024;

impl Given {
    fn note_address(&mut self, address: Ipv4Addr) {
        if self.addresses.len() == GIVEN_MAX {
            self.addresses.remove(0);
        }
        self.addresses.push(address);
    }

    fn note_port(&mut self, port: u16) {
        if self.ports.len() == GIVEN_MAX {
            self.ports.remove(0);
        }
        self.ports.push(port);
    }
}

fn given(server: &Inner) -> MutexGuard<'_, Given> {
    server.numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn taken(server: &Inner) -> (HashSet<IpAddr>, HashSet<u16>) {
    let memory = server.store.read();
    let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
    let Some(collection) = memory.collection("/services") else { return (addresses, ports) };
    for (_, stored) in collection.iter("") {
        let service = stored.value();
        addresses.extend(text(&service, &["spec", "clusterIP"]).parse::<IpAddr>().ok());
        let list = service.pointer("/spec/ports").and_then(Value::as_array);
        let numbers = list.into_iter().flatten().filter_map(|port| port.get("nodePort")?.as_u64());
        ports.extend(numbers.filter_map(|port| u16::try_from(port).ok()));
    }
    (addresses, ports)
}

fn free_address(cidr: &str, taken: &HashSet<IpAddr>, given: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let (base, len) = cidr.split_once('/')?;
    let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
    let size = 1_u32.checked_shl(32_u32.checked_sub(len.parse().ok()?)?)?;
    // The first address is the Service `kubernetes`' by custom, the first ten are left for fixed ones.
    let free = |n: u32| {
        let address = Ipv4Addr::from(base + n);
        (!taken.contains(&IpAddr::V4(address)) && !given.contains(&address)).then_some(address)
    };
    (11.min(size.saturating_sub(2))..size.saturating_sub(1)).find_map(free)
}
