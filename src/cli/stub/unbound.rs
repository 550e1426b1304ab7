//! Unbound: `forward-zone`. Source: unbound.conf(5).

use super::{Resolver, Stub, Text};
use crate::cli::failure::Outcome;

pub(super) const RESOLVER: Resolver = Resolver {
    name: "unbound",
    of_member: false,
    comment: Some("#"),
    place: "Unbound: a file like /etc/unbound/unbound.conf.d/atoll.conf, then `unbound-control reload`.",
    write,
};

fn write(stub: &Stub) -> Outcome<Text> {
    let mut lines = vec!["server:".to_owned()];
    for zone in stub.zones() {
        // No chain of trust leads to them from the root.
        lines.push(format!("    domain-insecure: \"{zone}.\""));
    }
    for zone in [stub.apex.as_str(), super::CLUSTERSET] {
        // Their addresses are private, and no rebinding.
        lines.push(format!("    private-domain: \"{zone}.\""));
    }
    for zone in &stub.reverse {
        // Unbound answers for private ranges itself unless told otherwise (RFC 6303).
        lines.push(format!("    local-zone: \"{zone}.\" transparent"));
    }
    if stub.servers.iter().any(|server| server.ip().is_loopback()) {
        lines.push("    do-not-query-localhost: no".into());
    }
    let servers = stub.servers(|server| format!("{}@{}", server.ip(), server.port()));
    for zone in stub.zones() {
        lines.push(format!("\nforward-zone:\n    name: \"{zone}.\""));
        lines.extend(servers.iter().map(|server| format!("    forward-addr: {server}")));
    }
    let remarks = vec![format!(
        "Search paths: where hosts search corp.example, the names that begin as Atoll's end here with\n    \
         local-zone: \"{}.corp.example.\" always_nxdomain",
        stub.apex
    )];
    Ok(Text { config: lines.join("\n"), remarks })
}
