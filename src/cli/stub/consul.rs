//! Consul: `recursors`. It has no forwarding by domain: everything outside its own goes to them, in order.
//! Source: Consul's configuration page, and `agent/dns.go`: the next one is asked after any code but NOERROR and NXDOMAIN.

use super::{Resolver, Stub, Text};
use crate::cli::failure::Outcome;

pub(super) const RESOLVER: Resolver = Resolver {
    name: "consul",
    of_member: true,
    comment: Some("#"),
    place: "Consul: a file like /etc/consul.d/00-atoll.hcl of every agent, then `consul reload`.",
    write,
};

fn write(stub: &Stub) -> Outcome<Text> {
    let servers = stub.servers(|server| format!("\"{server}\"")).join(", ");
    let config = format!("recursors = [{servers}]\ndns_config {{\n  recursor_strategy = \"sequential\"\n}}");
    let remarks = vec![
        "It asks its recursors for every name outside its own domain, and the next one when one says REFUSED: list the resolvers you have\n\
         after these (Atoll refuses names that are not its own), or let Atoll resolve them (`dns.recursion` and `dns.upstreams` of its file)."
            .into(),
        "Search paths: it knows no remedy. In resolv.conf of the hosts, `options ndots:1` (the default) asks names with a dot as they are.".into(),
    ];
    Ok(Text { config, remarks })
}
