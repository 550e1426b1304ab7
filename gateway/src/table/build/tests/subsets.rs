//! Which endpoints the subsets of services have, as cases.

use atoll_api::names::ServiceName;

use super::*;

/// Clusters `eu` with versions 1 and 2 of `shop/web`, `us` with version 2 alone, and the policy that tells them apart.
fn topology() -> Topology {
    let mut topology = Topology::default();
    topology.settings.default_set = "prod".to_owned();
    let web = ServiceName::new("shop", "web");
    for (cluster, endpoints) in [("eu", &[("10.1.0.1", "1"), ("10.1.0.2", "2")][..]), ("us", &[("10.2.0.1", "2")])] {
        let facts = json!({"name": cluster, "ready": true, "spec": {"environment": "prod"}});
        topology.clusters.insert(cluster.parse().unwrap(), Arc::new(serde_json::from_value(facts).unwrap()));
        let endpoint = |(address, version): &(&str, &str)| json!({"address": address, "ready": true, "labels": {"version": version}});
        let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
        let facts = json!({"endpoints": endpoints, "ports": [{"name": "http", "protocol": "TCP", "port": 8080}]});
        let facts = Arc::new(serde_json::from_value(facts).unwrap());
        topology.endpoints.entry(cluster.parse().unwrap()).or_default().insert(web.clone(), facts);
    }
    let facts = json!({"clusters": ["eu", "us"], "ports": [{"name": "http", "protocol": "TCP", "port": 80}]});
    let facts = Arc::new(serde_json::from_value(facts).unwrap());
    topology.services.entry("prod".to_owned()).or_default().insert(web.clone(), facts);
    let subset = |name: &str| json!({"name": format!("v{name}"), "labels": {"version": name}});
    let policy = json!({"service": "web", "subsets": [subset("1"), subset("2"), subset("9")]});
    topology.traffic.insert(web, Arc::new(serde_json::from_value(policy).unwrap()));
    topology
}

fn subset(name: &str) -> Value {
    json!({"type": "ExtensionRef", "extensionRef": {"group": "atoll.dev", "kind": "Subset", "name": name}})
}

/// A rule with these backends, each by its service and the subsets that it names.
fn rule(backends: &[(Value, &[&str])]) -> Value {
    let backend = |(target, subsets): &(Value, &[&str])| {
        let mut backend = target.clone();
        backend["filters"] = subsets.iter().map(|name| subset(name)).collect();
        backend
    };
    json!({"backendRefs": backends.iter().map(backend).collect::<Value>()})
}

fn import(name: &str) -> Value {
    json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": name, "port": 80})
}

fn local(name: &str) -> Value {
    json!({"name": name, "port": 80})
}

/// The Service of that name in the hub's own API, with endpoints at these pods, of its namespace unless another stands before a slash.
fn service(name: &str, pods: &[&str]) -> [Value; 2] {
    let meta = |name: &str| json!({"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name}});
    let endpoint = |(n, pod): (usize, &&str)| {
        let (namespace, pod) = pod.split_once('/').unwrap_or(("shop", pod));
        let target = json!({"kind": "Pod", "namespace": namespace, "name": pod});
        json!({"addresses": [format!("10.0.0.{n}")], "targetRef": target})
    };
    let endpoints: Vec<Value> = pods.iter().enumerate().map(endpoint).collect();
    [
        json!({"kind": "Service", "metadata": meta(name), "spec": {"ports": [{"name": "http", "port": 80}]}}),
        json!({"kind": "EndpointSlice", "metadata": meta(name), "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080}]}),
    ]
}

/// What the backends of the only rule lead to, or why they don't; what the condition ResolvedRefs says; and why the route is not accepted.
fn said(rule: Value, policies: &Topology) -> (Vec<String>, String, Option<String>) {
    let mut all = vec![gateway("g", NOW, json!([http("l", 80, None)])), route("r", NOW, json!([]), json!([rule]))];
    all.extend(service("web", &["web-1", "web-2", "other", "web-3", "away/web-1"]));
    all.extend(service("plain", &["web-1"]));
    let labelled = |pod: &str, version: &str| {
        let labels = BTreeMap::from([("version".to_owned(), version.to_owned())]);
        (("shop".to_owned(), pod.to_owned()), Arc::new(labels))
    };
    let pods = [labelled("web-1", "1"), labelled("web-2", "2"), labelled("web-3", "1")];
    let built = built_from(&all, &[], policies.clone(), |objects| objects.pods = pods.into_iter().collect());
    let head = http::Request::builder().uri("/").body(()).unwrap().into_parts().0;
    let entry = built.table.listener(Slot::Http, "x").and_then(|l| l.route("x", &head));
    let target = |target: &Result<usize, String>| match target {
        Err(why) => why.clone(),
        Ok(at) => {
            let upstream = &built.table.upstreams[*at];
            let parts = upstream.clusters.iter().map(|part| {
                let addresses: Vec<String> = part.endpoints.iter().map(|e| e.address.to_string()).collect();
                format!("{}[{}]", part.name().map_or("hub", |name| name.as_str()), addresses.join(" "))
            });
            format!("{}: {}", upstream.id, parts.collect::<Vec<_>>().join(" "))
        }
    };
    let targets = entry.iter().flat_map(|entry| &entry.rule.backends).map(|b| target(&b.target)).collect();
    let status: RouteStatus = built.statuses.of("HTTPRoute").remove(0);
    let said = |kind: &str| {
        let condition = status.parents[0].conditions.iter().find(|c| c.type_ == kind).unwrap();
        (condition.status != "True").then(|| format!("{}: {}", condition.reason, condition.message))
    };
    (targets, said("ResolvedRefs").unwrap_or_default(), said("Accepted"))
}

#[test]
fn a_backend_leads_to_the_endpoints_of_its_subset_and_to_no_others() {
    let of_set = "ServiceImport shop/web:80 of cluster set prod";
    let cases = [
        ("whole", vec![(import("web"), &[][..])], vec![format!("{of_set}: eu[10.1.0.1 10.1.0.2] us[10.2.0.1]")]),
        (
            "two versions",
            vec![(import("web"), &["v1"]), (import("web"), &["v2"])],
            vec![
                format!("{of_set}, subset v1: eu[10.1.0.1] us[]"),
                format!("{of_set}, subset v2: eu[10.1.0.2] us[10.2.0.1]"),
            ],
        ),
        ("nobody is of it", vec![(import("web"), &["v9"])], vec![format!("{of_set}, subset v9: eu[] us[]")]),
        (
            "the hub's own",
            vec![(local("web"), &["v1"])],
            vec!["Service shop/web:80, subset v1: hub[10.0.0.0 10.0.0.3]".to_owned()],
        ),
    ];
    for (name, backends, expected) in cases {
        assert_eq!(said(rule(&backends), &topology()), (expected, String::new(), None), "{name}");
    }
}

#[test]
fn a_subset_that_is_not_there_is_named_with_its_service_and_leads_nowhere() {
    let mut without = topology();
    without.traffic = Default::default();
    for (name, target, policies, why) in [
        (
            "unknown",
            import("web"),
            topology(),
            "ServiceImport `shop/web`: its TrafficPolicy `shop/web` has no subset `v3`, only v1, v2, v9",
        ),
        (
            "no policy",
            import("web"),
            without,
            "ServiceImport `shop/web`: no TrafficPolicy names it, so it has no subset `v3`",
        ),
        (
            "no policy of the hub's own",
            local("plain"),
            topology(),
            "Service `shop/plain`: no TrafficPolicy names it, so it has no subset `v3`",
        ),
    ] {
        let (targets, resolved, refused) = said(rule(&[(target, &["v3"])]), &policies);
        assert_eq!((targets, refused), (vec![why.to_owned()], None), "{name}");
        assert_eq!(resolved, format!("BackendNotFound: {why}"), "{name}");
    }
}

#[test]
fn a_subset_is_named_once_and_by_a_backend() {
    let (_, _, refused) = said(rule(&[(import("web"), &["v1", "v2"])]), &topology());
    assert!(refused.unwrap().contains("of one subset, `v1` or `v2`"));
    let mut misplaced = rule(&[(import("web"), &[])]);
    misplaced["filters"] = json!([subset("v1")]);
    let (_, _, refused) = said(misplaced, &topology());
    assert!(refused.unwrap().contains("subset `v1` is to be named among the filters of a backendRef"));
    let mut other = rule(&[(import("web"), &[])]);
    other["backendRefs"][0]["filters"] =
        json!([{"type": "ExtensionRef", "extensionRef": {"group": "example.com", "kind": "Subset", "name": "v1"}}]);
    let (_, _, refused) = said(other, &topology());
    assert!(refused.unwrap().contains("filter `ExtensionRef`: unknown"), "whose it is counts, too");
}
