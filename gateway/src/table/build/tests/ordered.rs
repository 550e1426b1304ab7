//! Which certificates are to be ordered of which objects, as cases.

use super::*;
use crate::acme::Wanted;

fn https(name: &str, host: Option<&str>, secret: Value) -> Value {
    json!({"name": name, "port": 443, "protocol": "HTTPS", "hostname": host, "tls": {"certificateRefs": [secret]},
        "allowedRoutes": {"namespaces": {"from": "All"}}})
}

fn asking(name: &str, listeners: Value) -> Value {
    let mut gateway = gateway(name, NOW, listeners);
    gateway["metadata"]["annotations"] = json!({"kubernetes.io/tls-acme": "true"});
    gateway
}

/// Secret, hosts, owners, and why it is not ordered.
fn said(wanted: &Wanted) -> String {
    let hosts = wanted.hosts.iter().cloned().collect::<Vec<_>>().join(",");
    let problem = wanted.problem.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{}/{} {hosts} {}{problem}", wanted.secret.0, wanted.secret.1, wanted.owners.len())
}

#[test]
fn certificates_that_are_asked_for_are_wanted_with_the_hosts_of_all_who_name_them() {
    let own = |name: &str| json!({"name": name});
    let quiet = gateway("quiet", NOW, json!([https("a", Some("quiet.test"), own("quiet"))]));
    let cases = [
        ("who does not ask has none", vec![quiet], vec![]),
        (
            "two that name one Secret share it",
            vec![
                asking("g", json!([https("a", Some("a.test"), own("tls")), https("b", Some("b.test"), own("tls"))])),
                asking("h", json!([https("c", Some("c.test"), own("tls")), http("plain", 80, None)])),
            ],
            vec!["infra/tls a.test,b.test,c.test 2"],
        ),
        (
            "without a host those of routes count",
            vec![
                asking("g", json!([https("any", None, own("tls"))])),
                route("r", NOW, json!(["x.test", "y.test"]), json!([path("PathPrefix", "/")])),
                route("all", NOW, json!([]), json!([path("PathPrefix", "/")])),
            ],
            vec!["infra/tls x.test,y.test 1"],
        ),
        (
            "what can't be ordered is told",
            vec![asking(
                "g",
                json!([
                    https("none", None, own("none")),
                    https("wild", Some("*.test"), own("wild")),
                    https("far", Some("far.test"), json!({"name": "far", "namespace": "shop"})),
                ]),
            )],
            vec![
                "infra/none  1: no host is known: give the listener a hostname, or attach a route that has one",
                "infra/wild *.test 1: `*.test`: no CA proves a wildcard by http-01; set gateway.acme.challenge to dns-01",
                "shop/far far.test 1: it is in another namespace than Gateway `infra/g`: a certificate is ordered only into its own",
            ],
        ),
    ];
    for (case, objects, expected) in cases {
        let ordered: Vec<String> = built(&objects).ordered.iter().map(said).collect();
        assert_eq!(ordered, expected, "{case}");
    }
    let alone =
        built_of(&[asking("g", json!([https("a", Some("a.test"), own("tls"))]))], &["192.0.2.0/28".parse().unwrap()]);
    let problem = alone.ordered[0].problem.clone().unwrap();
    assert!(problem.contains("port 80"), "an address of its own has nobody at port 80: {problem}");
}
