//! Cases of the configuration file.

use super::*;

/// The file of docs/configuration.md.
fn documented() -> String {
    let page = include_str!("../../docs/configuration.md");
    let (_, from) = page.split_once("```yaml\n").unwrap();
    from.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_documented_file_reads_as_it_is_meant() {
    let c = Config::parse(&documented()).unwrap();
    assert_eq!((c.apex.as_str(), c.default_set.as_str()), ("atoll.internal", "prod"));
    assert_eq!(c.embedded, Some(false));
    assert_eq!(c.hub.as_deref(), Some("hub.example.com:7443"));
    assert_eq!(c.standing.cluster_set.as_deref(), Some("prod"));
    assert_eq!(c.listen.webhook.unwrap().at, "0.0.0.0:9443".parse().unwrap());
    assert_eq!(c.advertise.gateway_relay.as_deref(), Some("gateway.example.com:7454"));
    assert_eq!(c.listen.dns_tls.unwrap().at, "0.0.0.0:853".parse().unwrap());
    assert_eq!(c.dns.tls.unwrap().key, Path::new("/etc/atoll-dns/tls.key"));
    assert_eq!(
        (c.dns.rate, c.dns.limits),
        (Rate::default(), Limits::default()),
        "the documented limits are the defaults"
    );
    assert_eq!(c.gateway.limits, atoll_gateway::Limits::default(), "the gateway's, too");
    assert_eq!(c.dns.upstreams, ["9.9.9.9:53".parse().unwrap()]);
    assert_eq!(c.dns.clients[0].1.region.as_deref(), Some("eu-central"));
    assert_eq!((c.dns.views[0].name.as_str(), c.dns.views[0].zones.len(), c.dns.ecs.len()), ("partners", 1, 1));
    assert_eq!(c.advertise.addresses, ["192.0.2.80".parse::<IpAddr>().unwrap()]);
    assert_eq!(c.gateway.addresses, ["192.0.2.96/28".parse().unwrap(), "2001:db8:80::/120".parse().unwrap()]);
    assert_eq!(c.gateway.classes, ["internal"]);
    assert!(c.gateway.http3);
    assert_eq!(c.gateway.names.servers, ["10.96.0.10:53".parse().unwrap(), "192.0.2.53:5353".parse().unwrap()]);
    assert_eq!(c.agent.token_file.unwrap(), Path::new("/run/token"));
}

#[test]
fn the_documented_listen_addresses_are_the_defaults() {
    let (said, default) = (Config::parse(&documented()).unwrap().listen, Config::parse("").unwrap().listen);
    let all = |l: &Listens| {
        [l.api, l.hub, l.dns, l.http, l.https, l.console, l.dns_relay, l.gateway_relay, l.admin].map(|l| l.at)
    };
    assert_eq!(all(&said), all(&default));
    assert!(said.api.chosen && !default.api.chosen);
    assert!(all(&default).iter().all(|at| at.ip().is_loopback()), "nothing but loopback unless asked for");
}

#[test]
fn a_bad_value_is_named_with_its_key_and_what_fits() {
    for (text, words) in [
        ("gateway: {service: true, addresses: [10.0.0.0/24]}", vec!["gateway.service", "gateway.addresses"]),
        ("gateway: {http3: maybe}", vec!["gateway.http3", "maybe"]),
        (
            "gateway: {providers: [{name: a, driver: f5, classes: [x]}]}",
            vec!["gateway.providers: `a`", "driver: `f5`", "webhook, haproxy"],
        ),
        (
            "gateway: {providers: [{name: a, driver: webhook, classes: [x], settings: {url: \"http://lb\"}}]}",
            vec!["`a`", "https://"],
        ),
        (
            "gateway: {providers: [{name: a, driver: webhook, classes: [gateway], settings: {url: \"https://lb\"}}]}",
            vec!["classes", "`gateway`"],
        ),
        ("gateway: {names: {servers: [dns.test]}}", vec!["gateway.names.servers", "dns.test", "10.96.0.10:53"]),
        ("gateway: {names: {allow: [ten]}}", vec!["gateway.names.allow", "ten"]),
        ("gateway: {service: maybe}", vec!["gateway.service", "maybe"]),
        (
            "gateway: {acme: {directory: \"http://ca/dir\"}}",
            vec!["gateway.acme.directory", "http://ca/dir", "https://"],
        ),
        ("gateway: {acme: {directory: \"https://ca/dir\"}}", vec!["gateway.acme.agreeToTerms", "https://ca/dir"]),
        (
            "gateway: {acme: {directory: \"https://ca/dir\", agreeToTerms: true, contact: [ops]}}",
            vec!["gateway.acme.contact", "`ops`"],
        ),
        (
            "gateway: {acme: {directory: \"https://ca/dir\", agreeToTerms: true, keyType: RSA}}",
            vec!["gateway.acme.keyType", "P-256, P-384"],
        ),
        (
            "gateway: {acme: {directory: \"https://ca/dir\", agreeToTerms: true, challenge: tls-alpn-01}}",
            vec!["gateway.acme.challenge", "http-01, dns-01"],
        ),
        (
            "gateway: {acme: {directory: \"https://ca/dir\", agreeToTerms: true, dnsSpreadSeconds: 5}}",
            vec!["gateway.acme.dnsSpreadSeconds", "dns-01"],
        ),
        (
            "gateway: {acme: {directory: \"https://ca/dir\", agreeToTerms: true, caFile: /nowhere.pem}}",
            vec!["gateway.acme.caFile", "/nowhere.pem"],
        ),
        (
            "gateway: {acme: {directory: \"https://ca/dir\", agreeToTerms: true, ca: nothing}}",
            vec!["gateway.acme.ca", "holds no certificate"],
        ),
        (
            "gateway: {acme: {directory: \"https://ca/dir\", agreeToTerms: true, externalAccount: {keyId: k}}}",
            vec!["gateway.acme.externalAccount", "`k`", "keySecret"],
        ),
        ("gateway: {classes: [\"in side\"]}", vec!["gateway.classes", "in side"]),
        ("apx: a", vec!["apx", "apex"]),
        ("listen: {dns: 127.0.0.1:53, dnss: x}", vec!["dnss"]),
        ("listen: {http: localhost:80}", vec!["listen.http", "localhost:80", "address:port"]),
        ("listen: {http: 80}", vec!["listen.http", "`80`"]),
        ("advertise: {hub: hub.example.com}", vec!["advertise.hub", "host:port"]),
        ("advertise: {api: \"https://x:1\"}", vec!["advertise.api", "https://x:1"]),
        ("hub: \"hub:0\"", vec!["hub", "hub:0"]),
        ("apex: \"a..b\"", vec!["apex", "a..b"]),
        ("defaultSet: Prod_1", vec!["defaultSet", "Prod_1"]),
        ("dns: {upstreams: [9.9.9.9]}", vec!["dns.upstreams", "9.9.9.9:53"]),
        ("dns: {recursion: [10.0.0.0/99]}", vec!["dns.recursion", "10.0.0.0/99"]),
        ("dns: {ecs: [ten]}", vec!["dns.ecs", "ten"]),
        ("dns: {views: [{match: {}}]}", vec!["dns.views", "name"]),
        ("dns: {views: [{name: a, match: {listeners: [tls]}}]}", vec!["view `a`", "`tls`", "dot"]),
        ("dns: {views: [{name: a, zones: [\"x..y\"]}]}", vec!["view `a`", "x..y"]),
        ("dns: {allow: [ten]}", vec!["dns.allow", "ten"]),
        ("dns: {tls: {cert: /a}}", vec!["key"]),
        ("dns: {rateLimit: {repliesPerSecond: 70000}}", vec!["dns.rateLimit", "60000"]),
        ("dns: {limits: {queries: 0}}", vec!["dns.limits", "at least 1"]),
        ("listen: {dnsTls: 853}", vec!["listen.dnsTls", "address:port"]),
        ("dns: {cache: {forwardedMegabytes: 0}}", vec!["dns.cache.forwardedMegabytes", "at least 1"]),
        ("dns: {cache: {wireMegabytes: 0}}", vec!["dns.cache.wireMegabytes", "between 1 and"]),
        ("dns: {cache: {megabytes: 64}}", vec!["dns.cache.megabytes", "dns.cache.forwardedMegabytes"]),
        ("dns: {cacheMegabytes: 32}", vec!["dns.cacheMegabytes", "dns.cache.wireMegabytes"]),
        ("dns: {cache: {staleMaxSeconds: 300000}}", vec!["dns.cache.staleMaxSeconds", "three days"]),
        ("dns: {rebinding: {ranges: [ten]}}", vec!["dns.rebinding.ranges", "ten"]),
        ("dns: {clients: {ten: {}}}", vec!["dns.clients", "ten"]),
        ("dns: {clients: {10.0.0.0/8: {planet: mars}}}", vec!["planet"]),
        ("advertise: {addresses: [gw.example.com]}", vec!["advertise.addresses", "gw.example.com"]),
        ("gateway: {addresses: [gw.example.com]}", vec!["gateway.addresses", "gw.example.com"]),
        ("gateway: {trustedProxies: {cidrs: [10.0.0.0/33]}}", vec!["gateway.trustedProxies.cidrs"]),
        ("gateway: {trustedProxies: {cidrs: [10.0.0.0/8], hops: 1}}", vec!["gateway.trustedProxies", "not both"]),
        ("gateway: {limits: {connections: 0}}", vec!["gateway.limits.connections", "at least 1"]),
        ("gateway: {limits: {bodySeconds: 0}}", vec!["gateway.limits.bodySeconds", "between 1 and 3600"]),
        ("gateway: {limits: {idleSeconds: 4000}}", vec!["gateway.limits.idleSeconds", "`4000`"]),
        ("agent: {cluster: svc}", vec!["agent.cluster", "svc"]),
        ("embedded: perhaps", vec!["embedded", "perhaps", "true nor false"]),
        ("apex: [", vec!["line"]),
        ("- a\n- b\n", vec![]),
    ] {
        let error = crate::error::line(&Config::parse(text).expect_err(text));
        for word in words {
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(!error.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named_as_a_mistake_of_usage() {
    let error = Config::read(Some(Path::new("/nowhere/atoll.yaml"))).unwrap_err();
    assert!(crate::error::line(&error).contains("/nowhere/atoll.yaml"), "{error:#}");
    assert_eq!(crate::error::code(&error), 2);
}

#[test]
fn the_charts_files_have_no_unknown_key() {
    for (part, text) in [
        (
            "hub",
            "apex: a.b\ndefaultSet: prod\ndataDir: /var/lib/atoll\nstanding: {}\nembedded: false\nlisten: {hub: 0.0.0.0:7443, console: 127.0.0.1:7070, webhook: 0.0.0.0:9443, admin: 0.0.0.0:7071}\nadvertise: {hub: r-hub.atoll-system.svc:7443, webhook: r-hub.atoll-system.svc:443}",
        ),
        (
            "dns",
            "hub: r-hub.atoll-system.svc:7443\nlisten: {dns: 0.0.0.0:5353, dnsTls: 0.0.0.0:5853, dnsHttps: 0.0.0.0:5443, dnsQuic: 0.0.0.0:5853, dnsH3: 0.0.0.0:5443, dnsRelay: \"[::]:7453\"}\nadvertise: {dnsRelay: r:7453}\ndns: {upstreams: [], recursion: [], clients: {}, allow: [], proxies: [], tls: {cert: /etc/atoll-dns/tls.crt, key: /etc/atoll-dns/tls.key}}",
        ),
        ("agent", "hub: h:7443\nagent: {cluster: prod-eu, tokenFile: /etc/atoll-token/token}"),
    ] {
        Config::parse(text).unwrap_or_else(|e| panic!("{part}: {e:#}"));
    }
}
