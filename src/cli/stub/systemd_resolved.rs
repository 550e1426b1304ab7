//! systemd-resolved: a drop-in with route-only domains. Sources: resolved.conf(5), systemd-resolved.service(8), dnssec-trust-anchors.d(5).

use super::{Resolver, Stub, Text};
use crate::cli::failure::Outcome;

pub(super) const RESOLVER: Resolver = Resolver {
    name: "systemd-resolved",
    of_member: false,
    comment: Some("#"),
    place: "systemd-resolved: a file like /etc/systemd/resolved.conf.d/atoll.conf, then `systemctl restart systemd-resolved`.",
    write,
};

fn write(stub: &Stub) -> Outcome<Text> {
    let servers = stub.servers(|server| if server.port() == 53 { server.ip().to_string() } else { server.to_string() });
    // `~` asks for the domain there without searching in it.
    let domains = stub.zones().map(|zone| format!("~{zone}")).collect::<Vec<_>>().join(" ");
    let config = format!("[Resolve]\nDNS={}\nDomains={domains}", servers.join(" "));
    let remarks = vec![
        format!("Where `DNSSEC=` is on, also write `{}` and `{}` into /etc/dnssec-trust-anchors.d/atoll.negative.", stub.apex, super::CLUSTERSET),
        "Names of no link's domain go to these servers too while no link has servers of its own: let Atoll resolve them, or set DNS= of a link."
            .into(),
        "Search paths: nothing to do; only names of one label are searched.".into(),
    ];
    Ok(Text { config, remarks })
}
