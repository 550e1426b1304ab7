//! kube-dns: `stubDomains` of its ConfigMap. Source: kubernetes/dns, `pkg/dns/config` (keys are DNS-1123 names, values IP or IP:port).

use std::collections::BTreeMap;

use super::{Resolver, Stub, Text};
use crate::cli::failure::{Failure, Outcome};

pub(super) const RESOLVER: Resolver = Resolver {
    name: "kube-dns",
    of_member: true,
    comment: Some("#"),
    place: "kube-dns: kubectl apply -f - in the member. What its ConfigMap says already has to stand in it too: one object holds all.",
    write,
};

fn write(stub: &Stub) -> Outcome<Text> {
    let servers = stub.servers(|server| if server.port() == 53 { server.ip().to_string() } else { server.to_string() });
    let domains: BTreeMap<&str, &Vec<String>> = stub.zones().map(|zone| (zone, &servers)).collect();
    let domains = serde_json::to_string_pretty(&domains).map_err(Failure::on("print JSON"))?;
    let indented = domains.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n");
    let config = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kube-dns\n  namespace: kube-system\ndata:\n  stubDomains: |\n{indented}"
    );
    let remarks = vec![
        "Search paths: it knows no remedy of its own. Let pods write the last dot of names, or set dnsConfig.options ndots to 2.".into(),
    ];
    Ok(Text { config, remarks })
}
