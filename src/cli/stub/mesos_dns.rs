//! Mesos-DNS: `zoneResolvers` of its config.json. Sources: its configuration page, and `resolver/resolver.go`, which asks port 53 always.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Resolver, Stub, Text};
use crate::cli::failure::{Failure, Outcome};

pub(super) const RESOLVER: Resolver = Resolver {
    name: "mesos-dns",
    of_member: true,
    comment: None,
    place: "Mesos-DNS: this key goes into config.json, beside what zoneResolvers holds already; then restart it (`externalon` stays true).",
    write,
};

fn write(stub: &Stub) -> Outcome<Text> {
    if let Some(server) = stub.servers.iter().find(|server| server.port() != 53) {
        return Err(Failure::usage(format!(
            "DNS server {server}: Mesos-DNS asks port 53 only; name one that answers there"
        )));
    }
    if let Some(server) = stub.servers.iter().find(|server| server.is_ipv6()) {
        return Err(Failure::usage(format!("DNS server {server}: Mesos-DNS asks IPv4 addresses only")));
    }
    let servers = stub.servers(|server| server.ip().to_string());
    let zones: BTreeMap<&str, &Vec<String>> = stub.zones().map(|zone| (zone, &servers)).collect();
    let config = serde_json::to_string_pretty(&json!({ "zoneResolvers": zones })).map_err(Failure::on("print JSON"))?;
    let remarks =
        vec!["Search paths: it knows no remedy. In resolv.conf of the hosts, `options ndots:1` (the default) asks names with a dot as they are.".into()];
    Ok(Text { config, remarks })
}
