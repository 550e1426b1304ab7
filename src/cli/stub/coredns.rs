//! CoreDNS: a server block with `forward`. Sources: the READMEs of its plugins `forward`, `cache`, `autopath` and `template`.

use super::{Resolver, Stub, Text};
use crate::cli::failure::Outcome;

pub(super) const RESOLVER: Resolver = Resolver {
    name: "coredns",
    of_member: true,
    comment: Some("#"),
    place: "CoreDNS: a block beside `.:53 {…}` in the Corefile (on Kubernetes: ConfigMap kube-system/coredns, which it reloads by itself).",
    write,
};

fn write(stub: &Stub) -> Outcome<Text> {
    let zones = stub.zones().collect::<Vec<_>>().join(" ");
    let servers = stub.servers(|server| server.to_string()).join(" ");
    // Short, so that what changes is seen at once; old answers only while nobody answers.
    let config = format!(
        "{zones} {{\n    errors\n    cache 5 {{\n        serve_stale 1h verify\n    }}\n    forward . {servers} {{\n        policy sequential\n        \
         max_concurrent 1000\n    }}\n}}"
    );
    let apex = stub.apex.replace('.', "\\.");
    let remarks = vec![format!(
        "Search paths: pods with ndots:5 ask NAME.NAMESPACE.svc.cluster.local and so on before NAME. Let them write the last dot, or set\n\
         dnsConfig.options ndots to 2. In the block of `.`, `autopath @kubernetes` (with `pods verified`) ends all searches early, and this\n\
         those for names of Atoll:\n    \
         template IN ANY cluster.local {{\n        \
         match \\.{apex}\\.(.+\\.)?cluster\\.local\\.$\n        \
         rcode NXDOMAIN\n        \
         authority \"cluster.local. 60 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 60\"\n        \
         fallthrough\n    }}"
    )];
    Ok(Text { config, remarks })
}
