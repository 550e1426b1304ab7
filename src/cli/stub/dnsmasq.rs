//! dnsmasq: `server=/domain/address#port`. Source: dnsmasq(8).

use super::{Resolver, Stub, Text};
use crate::cli::failure::Outcome;

pub(super) const RESOLVER: Resolver = Resolver {
    name: "dnsmasq",
    of_member: false,
    comment: Some("#"),
    place: "dnsmasq: a file like /etc/dnsmasq.d/atoll.conf, then restart it.",
    write,
};

fn write(stub: &Stub) -> Outcome<Text> {
    let servers = stub.servers(|server| format!("{}#{}", server.ip(), server.port()));
    let ask = |zone: &str| servers.iter().map(|server| format!("server=/{zone}/{server}")).collect::<Vec<_>>();
    let mut lines: Vec<String> = stub.zones().flat_map(ask).collect();
    // Counts only with stop-dns-rebind: their addresses are private.
    lines.push(format!("rebind-domain-ok=/{}/{}/", stub.apex, super::CLUSTERSET));
    let remarks = vec![format!(
        "Search paths: where hosts search corp.example, the names that begin as Atoll's end here with\n    local=/{}.corp.example/",
        stub.apex
    )];
    Ok(Text { config: lines.join("\n"), remarks })
}
