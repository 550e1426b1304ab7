//! What is written for each resolver, and what is said to bad words. Whether the resolvers understand it: `tests/stub.rs`.

use std::collections::BTreeMap;

use super::*;

fn stub(servers: &[&str]) -> Stub {
    Stub {
        apex: "atoll.internal".into(),
        servers: servers.iter().map(|s| server(s).unwrap()).collect(),
        reverse: vec!["1.10.in-addr.arpa".into()],
    }
}

#[test]
fn each_resolver_is_told_every_zone_and_every_server() {
    let zones = ["atoll.internal", "clusterset.local", "1.10.in-addr.arpa"];
    for resolver in RESOLVERS {
        let written = (resolver.write)(&stub(&["192.0.2.53", "198.51.100.53"])).unwrap();
        for word in ["192.0.2.53", "198.51.100.53"] {
            assert!(written.config.contains(word), "{}: no {word} in\n{}", resolver.name, written.config);
        }
        // Consul can't be told zones: it asks for everything.
        for zone in zones.iter().filter(|_| resolver.name != "consul") {
            assert!(written.config.contains(zone), "{}: no {zone} in\n{}", resolver.name, written.config);
        }
        let remarks = written.remarks.join("\n");
        assert!(remarks.contains("Search paths:"), "{}: {remarks}", resolver.name);
        let page = resolver.page(&written);
        let comment = resolver.comment.unwrap_or("\0");
        let code: Vec<&str> = page.lines().filter(|line| !line.starts_with(comment)).collect();
        assert_eq!(code.join("\n"), written.config, "{}", resolver.name);
    }
}

#[test]
fn ports_are_written_as_each_resolver_reads_them() {
    for (name, says) in [
        ("coredns", "forward . 192.0.2.53:5353 [2001:db8::1]:53 {"),
        ("kube-dns", "\"192.0.2.53:5353\""),
        ("consul", "recursors = [\"192.0.2.53:5353\", \"[2001:db8::1]:53\"]"),
        ("unbound", "forward-addr: 192.0.2.53@5353\n    forward-addr: 2001:db8::1@53"),
        ("dnsmasq", "server=/atoll.internal/192.0.2.53#5353\nserver=/atoll.internal/2001:db8::1#53"),
        ("systemd-resolved", "DNS=192.0.2.53:5353 2001:db8::1"),
    ] {
        let written = (find(name).unwrap().write)(&stub(&["192.0.2.53:5353", "2001:db8::1"])).unwrap();
        assert!(written.config.contains(says), "{name}: no {says:?} in\n{}", written.config);
    }
    for (bad, says) in [("192.0.2.53:5353", "port 53 only"), ("2001:db8::1", "IPv4")] {
        let refused = (mesos_dns::RESOLVER.write)(&stub(&[bad])).err().unwrap();
        assert!(refused.code == 2 && refused.message.contains(says), "{}", refused.message);
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for bad in ["", "resolver.example", "0.0.0.0", "192.0.2.1:0", "224.0.0.1", "192.0.2.1:x", "[::]:53"] {
        assert_eq!(server(bad).unwrap_err().code, 2, "{bad}");
    }
    let refused = find("bind").err().unwrap();
    assert!(refused.code == 2 && refused.message.contains("dnsmasq, systemd-resolved"), "{}", refused.message);
    for bad in ["", ".", "a..b", "a_b", "ü.example"] {
        assert_eq!(domain(bad).unwrap_err().code, 2, "{bad}");
    }
    assert_eq!(domain("Atoll.Internal.").unwrap(), "atoll.internal");
}

#[test]
fn a_cluster_asks_atoll_for_the_addresses_of_all_others() {
    let cluster = |name: &str, pods: &str, services: &str| -> Cluster {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"environment": "prod"},
            "status": {"cidrs": {"pods": [pods], "services": [services]}}}))
        .unwrap()
    };
    let clusters = [
        cluster("eu", "10.1.0.0/16", "10.201.0.0/16"),
        cluster("us", "10.2.0.0/16", "10.201.0.0/16"),
        cluster("x", "192.0.2.0/25", "y"),
    ];
    let cases: BTreeMap<Option<&str>, &[&str]> = BTreeMap::from([
        (None, ["1.10.in-addr.arpa", "2.10.in-addr.arpa", "201.10.in-addr.arpa"].as_slice()),
        (Some("eu"), ["2.10.in-addr.arpa"].as_slice()),
        (Some("us"), ["1.10.in-addr.arpa"].as_slice()),
    ]);
    for (own, zones) in cases {
        let mut remarks = Vec::new();
        assert_eq!(reverse_zones(&clusters, own, &mut remarks), zones, "{own:?}");
        assert!(remarks[0].contains("192.0.2.0/25 (x), y (x)"), "{remarks:?}");
    }
}
