//! What tables are made of which objects, as cases.

use atoll_api::kinds::gateway::{GatewayStatus, ListenerSetStatus, RouteStatus};
use serde_json::{Value, json};

use super::*;
use crate::fleet::Fleet;
use crate::table::{ListenerTable, Slot};

mod ordered;
mod subsets;

const NOW: &str = "2026-01-01T00:00:00Z";

/// Objects by kind.
fn objects(all: &[Value]) -> Objects {
    fn of<K: serde::de::DeserializeOwned, A: FromIterator<Arc<K>>>(all: &[Value], kind: &str) -> A {
        let ours = all.iter().filter(|o| o["kind"] == kind);
        ours.map(|o| Arc::new(serde_json::from_value(o.clone()).unwrap())).collect()
    }
    Objects {
        definitions: of(all, "CustomResourceDefinition"),
        classes: of(all, "GatewayClass"),
        gateways: of(all, "Gateway"),
        sets: of(all, "ListenerSet"),
        routes: of(all, "HTTPRoute"),
        grpc: of(all, "GRPCRoute"),
        tls: of(all, "TLSRoute"),
        tcp: of(all, "TCPRoute"),
        udp: of(all, "UDPRoute"),
        policies: of(all, "BackendTLSPolicy"),
        grants: of(all, "ReferenceGrant"),
        secrets: of(all, "Secret"),
        configs: of(all, "ConfigMap"),
        services: of(all, "Service"),
        slices: of(all, "EndpointSlice"),
        namespaces: of(all, "Namespace"),
        ingresses: of(all, "Ingress"),
        ingress_classes: of(all, "IngressClass"),
        derived: Arc::default(),
        balancers: Arc::default(),
        over: Arc::default(),
        names: Arc::default(),
        pods: Default::default(),
    }
}

fn built(all: &[Value]) -> Built {
    built_of(all, &[])
}

/// The same with addresses for each Gateway.
fn built_of(all: &[Value], pool: &[IpNet]) -> Built {
    built_with(all, pool, |_| {})
}

/// The same with what is derived of the objects.
fn built_with(all: &[Value], pool: &[IpNet], derive: impl FnOnce(&mut Objects)) -> Built {
    let mut topology = Topology::default();
    topology.settings.default_set = "prod".to_owned();
    built_from(all, pool, topology, derive)
}

/// The same over a topology.
fn built_from(all: &[Value], pool: &[IpNet], topology: Topology, derive: impl FnOnce(&mut Objects)) -> Built {
    let class =
        json!({"kind": "GatewayClass", "metadata": {"name": "atoll"}, "spec": {"controllerName": "atoll.dev/gateway"}});
    let mut objects = objects(&[all, &[class]].concat());
    derive(&mut objects);
    let taken = Unopened { foreign: false, why: "taken".to_owned() };
    let ports =
        Ports { http: 8080, https: 8443, failed: BTreeMap::from([(Slot::Tcp(None, 99), taken)]), ..Ports::default() };
    let topology = Arc::new(topology);
    let addresses = ["192.0.2.1".to_owned()];
    let input = Input {
        instance: "gateway-1",
        objects: &objects,
        topology: &topology,
        ports: &ports,
        addresses: &addresses,
        pool,
        service: false,
        own: &[],
        node: None,
        fleet: &Fleet::default(),
        certificates: &Standing::nothing(),
        orders: Some(Proving::Http),
        now: NOW.parse().unwrap(),
    };
    build(&input, &mut Memory::default())
}

fn gateway(name: &str, created: &str, listeners: Value) -> Value {
    json!({"kind": "Gateway", "metadata": {"name": name, "namespace": "infra", "creationTimestamp": created},
        "spec": {"gatewayClassName": "atoll", "listeners": listeners}})
}

fn http(name: &str, port: u16, host: Option<&str>) -> Value {
    json!({"name": name, "port": port, "protocol": "HTTP", "hostname": host, "allowedRoutes": {"namespaces": {"from": "All"}}})
}

fn route(name: &str, created: &str, hosts: Value, rules: Value) -> Value {
    json!({"kind": "HTTPRoute", "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
        "spec": {"parentRefs": [{"name": "g", "namespace": "infra"}], "hostnames": hosts, "rules": rules}})
}

fn path(kind: &str, value: &str) -> Value {
    json!({"matches": [{"path": {"type": kind, "value": value}}]})
}

/// `route rule` that takes a request.
fn taken(built: &Built, slot: Slot, host: &str, target: &str) -> String {
    let head = http::Request::builder().uri(target).body(()).unwrap().into_parts().0;
    let listener: Option<&Arc<ListenerTable>> = built.table.listener(slot, host);
    match listener.map(|l| l.route(host, &head)) {
        None => "no listener".to_owned(),
        Some(None) => "no route".to_owned(),
        Some(Some(entry)) => {
            format!("{} {}", entry.rule.route.trim_start_matches("HTTPRoute shop/"), entry.rule.index)
        }
    }
}

#[test]
fn the_more_specific_host_then_match_then_the_older_route_takes_a_request() {
    let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    let built = built(&[
        gateway("g", old, json!([http("any", 80, None), http("narrow", 80, Some("*.narrow.test"))])),
        route("b-old", old, json!(["a.test"]), json!([path("PathPrefix", "/"), path("PathPrefix", "/same")])),
        route(
            "a-new",
            new,
            json!(["a.test"]),
            json!([path("PathPrefix", "/same"), path("Exact", "/exact"), path("PathPrefix", "/long/er")]),
        ),
        route("wild", old, json!(["*.test"]), json!([path("Exact", "/exact"), path("Exact", "/wild")])),
        route("all", old, json!([]), json!([path("PathPrefix", "/")])),
    ]);
    for (host, target, expected) in [
        ("a.test", "/", "b-old 0"),
        ("a.test", "/same", "b-old 1"),
        ("a.test", "/exact", "a-new 1"),
        ("a.test", "/long/er/x", "a-new 2"),
        ("a.test", "/long", "b-old 0"),
        ("a.test", "/wild", "b-old 0"),
        ("x.test", "/exact", "wild 0"),
        ("x.test", "/other", "all 0"),
        ("elsewhere", "/", "all 0"),
        ("x.narrow.test", "/wild", "wild 1"),
        ("x.narrow.test", "/", "all 0"),
    ] {
        assert_eq!(taken(&built, Slot::Http, host, target), expected, "{host}{target}");
    }
    assert_eq!(taken(&built, Slot::Https, "a.test", "/"), "no listener");
}

#[test]
fn listener_ports_are_shared_or_opened_or_unavailable() {
    let tls =
        |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTPS", "hostname": name, "tls": {}});
    let other = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol, "hostname": name});
    let all = json!([
        http("p80", 80, Some("p80")),
        http("real", 8080, Some("real")),
        http("own", 81, Some("own")),
        http("taken", 99, Some("taken")),
        http("on443", 443, Some("on443")),
        tls("p443", 443),
        tls("on80", 80),
        tls("mixed", 81),
        other("tcp", 5000, "TCP"),
        other("tcp443", 443, "TCP"),
        other("odd", 5001, "QUIC"),
        http("twice", 80, Some("p80")),
        http("zero", 0, Some("zero")),
    ]);
    let built = built(&[gateway("g", NOW, all)]);
    let status: GatewayStatus = built.statuses.of("Gateway").remove(0);
    for (name, accepted, reason) in [
        ("p80", "True", "Accepted"),
        ("real", "True", "Accepted"),
        ("own", "True", "Accepted"),
        ("taken", "False", "PortUnavailable"),
        ("on443", "False", "PortUnavailable"),
        ("p443", "True", "Accepted"),
        ("on80", "False", "PortUnavailable"),
        ("mixed", "False", "ProtocolConflict"),
        ("tcp", "True", "Accepted"),
        ("tcp443", "False", "PortUnavailable"),
        ("odd", "False", "UnsupportedProtocol"),
        ("twice", "False", "HostnameConflict"),
        ("zero", "False", "PortUnavailable"),
    ] {
        let listener = status.listeners.iter().find(|l| l.name == name).unwrap();
        let found = listener.conditions.iter().find(|c| c.type_ == "Accepted").unwrap();
        assert_eq!((found.status.as_str(), found.reason.as_str()), (accepted, reason), "{name}");
    }
    let tcp = |port| Slot::Tcp(None, port);
    assert_eq!(built.wanted, BTreeSet::from([tcp(81), tcp(99), tcp(5000)]), "one that failed is tried again");
    assert_eq!(built.table.slots.keys().copied().collect::<Vec<_>>(), [Slot::Http, tcp(81), tcp(5000)]);
    let reasons: Vec<&str> = status.conditions.iter().map(|c| c.reason.as_str()).collect();
    assert_eq!(reasons, ["ListenersNotValid", "Programmed"]);
}

#[test]
fn two_gateways_share_a_port_by_host_and_the_older_keeps_what_both_claim() {
    let built = built(&[
        gateway(
            "a-new",
            "2026-01-02T00:00:00Z",
            json!([http("l", 80, Some("both.test")), http("own", 80, Some("new.test"))]),
        ),
        gateway("g", "2026-01-01T00:00:00Z", json!([http("l", 80, Some("both.test"))])),
    ]);
    let holder = |host| built.table.listener(Slot::Http, host).map(|l| l.gateway.as_str());
    assert_eq!((holder("both.test"), holder("new.test")), (Some("infra/g"), Some("infra/a-new")));
}

#[test]
fn addresses_wished_for_must_be_ours() {
    for (wish, accepted, programmed) in [
        (json!([]), ("True", "Accepted"), ("True", "Programmed")),
        (json!([{"value": "192.0.2.1"}]), ("True", "Accepted"), ("True", "Programmed")),
        (json!([{"value": "192.0.2.9"}]), ("True", "Accepted"), ("False", "AddressNotUsable")),
        (json!([{"type": "example.com/odd", "value": "x"}]), ("False", "UnsupportedAddress"), ("False", "Invalid")),
    ] {
        let mut object = gateway("g", NOW, json!([http("l", 80, None)]));
        object["spec"]["addresses"] = wish.clone();
        let built = built(&[object]);
        let status: GatewayStatus = built.statuses.of("Gateway").remove(0);
        let found = |kind: &str| {
            let condition = status.conditions.iter().find(|c| c.type_ == kind).unwrap();
            (condition.status.clone(), condition.reason.clone())
        };
        let owned = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
        assert_eq!((found("Accepted"), found("Programmed")), (owned(accepted), owned(programmed)), "{wish}");
        assert_eq!(status.addresses.len(), usize::from(programmed.0 == "True"), "{wish}");
        assert_eq!(built.table.listener(Slot::Http, "x").is_some(), programmed.0 == "True", "{wish}");
    }
}

#[test]
fn routes_attach_where_namespaces_kinds_and_sections_allow() {
    let labelled = json!({"kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "web"}}});
    let from = |namespaces: Value| json!([{"name": "l", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": namespaces}}]);
    let selector = |team: &str| json!({"from": "Selector", "selector": {"matchLabels": {"team": team}}});
    let kinds = json!([{"name": "l", "port": 80, "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "All"}, "kinds": [{"kind": "GRPCRoute"}]}}]);
    for (name, listeners, attached) in [
        ("all", from(json!({"from": "All"})), 1),
        ("same", from(json!({"from": "Same"})), 0),
        ("absent", json!([{"name": "l", "port": 80, "protocol": "HTTP"}]), 0),
        ("selected", from(selector("web")), 1),
        ("not selected", from(selector("db")), 0),
        ("none", from(json!({"from": "None"})), 0),
        ("kinds", kinds, 0),
    ] {
        let route = route("r", NOW, json!([]), json!([path("PathPrefix", "/")]));
        let built = built(&[gateway("g", NOW, listeners), route, labelled.clone()]);
        let status: GatewayStatus = built.statuses.of("Gateway").remove(0);
        assert_eq!(status.listeners[0].attached_routes, attached, "{name}");
        let status: RouteStatus = built.statuses.of("HTTPRoute").remove(0);
        let accepted = &status.parents[0].conditions[0];
        assert_eq!(accepted.status == "True", attached == 1, "{name}: {}", accepted.reason);
    }
}

#[test]
fn statuses_that_say_the_same_are_not_written_again() {
    let mut objects = vec![
        gateway("g", NOW, json!([http("l", 80, None)])),
        route("r", NOW, json!([]), json!([path("PathPrefix", "/")])),
    ];
    let first = built(&objects).statuses;
    let count = |s: &Statuses, kind| s.of::<Value>(kind).len();
    assert_eq!((count(&first, "Gateway"), count(&first, "HTTPRoute")), (1, 1));
    objects[0]["status"] = first.of("Gateway").remove(0);
    objects[1]["status"] = first.of("HTTPRoute").remove(0);
    let second = built(&objects).statuses;
    assert_eq!((count(&second, "Gateway"), count(&second, "HTTPRoute")), (0, 0));
}

#[test]
fn gateways_of_other_classes_are_not_touched() {
    let mut foreign = gateway("g", NOW, json!([http("l", 80, None)]));
    foreign["spec"]["gatewayClassName"] = json!("nginx");
    let built = built(&[foreign, route("r", NOW, json!([]), json!([path("PathPrefix", "/")]))]);
    let said = |kind| built.statuses.of::<Value>(kind).len();
    assert_eq!((said("Gateway"), said("HTTPRoute"), built.table.slots.len()), (0, 0, 0));
}

#[test]
fn a_grant_lets_a_route_reach_a_service_of_another_namespace() {
    let service = json!({"kind": "Service", "metadata": {"name": "db", "namespace": "other"},
        "spec": {"ports": [{"name": "http", "port": 80, "appProtocol": "kubernetes.io/h2c"}]}});
    let slice = json!({"kind": "EndpointSlice", "metadata": {"name": "db-1", "namespace": "other",
        "labels": {"kubernetes.io/service-name": "db"}}, "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.2"]},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}}, {"addresses": ["no address"]}]});
    let grant = json!({"kind": "ReferenceGrant", "metadata": {"name": "g", "namespace": "other"}, "spec": {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}],
        "to": [{"group": "", "kind": "Service"}]}});
    let rules = json!([{"backendRefs": [{"name": "db", "namespace": "other", "port": 80}]}]);
    let all =
        [gateway("g", NOW, json!([http("l", 80, None)])), route("r", NOW, json!([]), rules), service, slice, grant];
    let without = built(&all[..4]);
    let reason = |built: &Built| {
        let status: RouteStatus = built.statuses.of("HTTPRoute").remove(0);
        status.parents[0].conditions[1].reason.clone()
    };
    assert_eq!((reason(&without), without.table.upstreams.len()), ("RefNotPermitted".to_owned(), 0));
    let with = built(&all);
    assert_eq!(reason(&with), "ResolvedRefs");
    let upstream = &with.table.upstreams[0];
    let found: Vec<String> =
        upstream.clusters[0].endpoints.iter().map(|e| format!("{}:{}", e.address, e.port)).collect();
    assert_eq!((upstream.h2, found.join(" ").as_str()), (true, "10.0.0.1:8080 10.0.0.2:8080"));
}

#[test]
fn a_name_of_another_namespaces_service_needs_a_grant_as_a_reference_does() {
    let external = |to: &str| {
        json!({"kind": "Service", "metadata": {"name": "alias", "namespace": "shop"},
            "spec": {"type": "ExternalName", "externalName": to}})
    };
    let grant = |kind: &str, name: &str| {
        json!({"kind": "ReferenceGrant", "metadata": {"name": "g", "namespace": "other"}, "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": "shop"}],
            "to": [{"group": "", "kind": "Service", "name": name}]}})
    };
    let rules = json!([{"backendRefs": [{"name": "alias", "port": 80}]}]);
    let all = [gateway("g", NOW, json!([http("l", 80, None)])), route("r", NOW, json!([]), rules)];
    let said = |more: &[Value]| {
        let status: RouteStatus = built(&[&all[..], more].concat()).statuses.of("HTTPRoute").remove(0);
        let resolved = status.parents[0].conditions[1].clone();
        (resolved.reason, resolved.message)
    };
    let name = "db.other.svc.cluster.local";
    let (reason, message) = said(&[external(name)]);
    assert_eq!(reason, "RefNotPermitted");
    for word in ["shop/alias", name, "namespace other", "HTTPRoutes of shop", "Service db"] {
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(said(&[external(name), grant("GRPCRoute", "db")]).0, "RefNotPermitted");
    assert_eq!(said(&[external(name), grant("HTTPRoute", "cache")]).0, "RefNotPermitted");
    for more in
        [vec![external(name), grant("HTTPRoute", "db")], vec![external("web.shop.svc")], vec![external("a.test")]]
    {
        assert_eq!(said(&more).0, "ResolvedRefs", "{more:?}");
    }
}

#[test]
fn requests_of_a_route_that_is_refused_are_no_other_routes() {
    let shut = json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/admin"}}],
        "filters": [{"type": "ExtensionRef", "extensionRef": {"group": "x", "kind": "Login", "name": "l"}}]}]);
    let all = [
        gateway("g", NOW, json!([http("l", 80, None)])),
        route("open", NOW, json!([]), json!([path("PathPrefix", "/")])),
        route("shut", NOW, json!([]), shut),
    ];
    let built = built(&all);
    assert_eq!(taken(&built, Slot::Http, "a.test", "/admin/x"), "shut 0");
    assert_eq!(taken(&built, Slot::Http, "a.test", "/"), "open 0");
    let statuses = built.statuses.of::<RouteStatus>("HTTPRoute");
    let accepted: Vec<&str> = statuses.iter().map(|s| s.parents[0].conditions[0].status.as_str()).collect();
    assert_eq!(accepted, ["True", "False"]);
    let gateway: GatewayStatus = built.statuses.of("Gateway").remove(0);
    assert_eq!(gateway.listeners[0].attached_routes, 1, "it is refused all the same");
}

#[test]
fn the_class_promises_less_where_the_standard_channel_is_installed() {
    let promised = |channel: &str| {
        let definition = json!({"kind": "CustomResourceDefinition", "spec": {"group": "g", "names": {"kind": "k", "plural": "ks"},
            "scope": "Namespaced", "versions": []}, "metadata": {"name": "httproutes.gateway.networking.k8s.io",
            "annotations": {"gateway.networking.k8s.io/channel": channel}}});
        let status: Value = built(&[definition]).statuses.of("GatewayClass").remove(0);
        status["supportedFeatures"].as_array().unwrap().iter().map(|f| f["name"].clone()).collect::<Vec<_>>()
    };
    let (experimental, standard) = (promised("experimental"), promised("standard"));
    let lacking: Vec<_> = experimental.iter().filter(|name| !standard.contains(name)).collect();
    let expected = [
        "GRPCRouteSessionPersistence",
        "GRPCRouteSessionPersistenceHeader",
        "HTTPRouteExternalAuth",
        "HTTPRouteExternalAuthForwardBody",
        "HTTPRouteExternalAuthGRPC",
        "HTTPRouteExternalAuthHTTP",
        "HTTPRouteRetry",
        "HTTPRouteRetryBackendTimeout",
        "HTTPRouteRetryConnectionError",
        "HTTPRouteSessionPersistence",
        "HTTPRouteSessionPersistenceCookieLifetimeTypePermanent",
    ];
    assert_eq!(lacking, expected);
}

#[test]
fn listener_sets_add_listeners_where_the_gateway_allows_them() {
    let set = |name: &str, created: &str, hosts: &[&str]| {
        let listeners: Vec<Value> = hosts.iter().map(|host| http(&host.replace('.', "-"), 80, Some(host))).collect();
        json!({"kind": "ListenerSet", "metadata": {"name": name, "namespace": "infra", "creationTimestamp": created},
            "spec": {"parentRef": {"name": "g"}, "listeners": listeners}})
    };
    let mut open = gateway("g", "2026-01-01T00:00:00Z", json!([http("own", 80, Some("own.test"))]));
    let sets = [
        set("new", "2026-01-03T00:00:00Z", &["both.test", "new.test"]),
        set("old", "2026-01-02T00:00:00Z", &["both.test", "own.test"]),
    ];
    let closed = built(&[open.clone(), sets[0].clone(), sets[1].clone()]);
    assert_eq!(closed.statuses.of::<ListenerSetStatus>("ListenerSet")[0].conditions[0].reason, "NotAllowed");
    assert!(closed.table.listener(Slot::Http, "both.test").is_none());
    open["spec"]["allowedListeners"] = json!({"namespaces": {"from": "Same"}});
    let built = built(&[open, sets[0].clone(), sets[1].clone()]);
    let name = |host| built.table.listener(Slot::Http, host).map(|l| l.name.clone()).unwrap_or_default();
    assert_eq!([name("own.test"), name("both.test"), name("new.test")], ["own", "both-test", "new-test"]);
    let status: GatewayStatus = built.statuses.of("Gateway").remove(0);
    assert_eq!((status.listeners.len(), status.attached_listener_sets), (1, Some(2)));
    let conflicts = built.statuses.of::<ListenerSetStatus>("ListenerSet").into_iter().map(|s| {
        let held = |l: &atoll_api::kinds::gateway::ListenerStatus| l.conditions[0].reason == "HostnameConflict";
        s.listeners.iter().filter(|l| held(l)).map(|l| l.name.clone()).collect::<Vec<_>>()
    });
    // By name, the newer first.
    assert_eq!(conflicts.collect::<Vec<_>>(), [["both-test"], ["own-test"]], "the older set keeps what both claim");
}

#[test]
fn what_is_stated_of_a_gateway_is_where_it_is_reached_and_for_whom() {
    let old = "2026-01-01T00:00:00Z";
    let mut alone = gateway("narrow", old, json!([http("a", 80, Some("*.shop.test")), http("b", 81, Some("x.test"))]));
    alone["metadata"]["generation"] = json!(7);
    alone["metadata"]["labels"] = json!({"atoll.dev/cluster-set": "dev"});
    let nobody = gateway("nobody", old, json!([{"name": "a", "port": 80, "protocol": "HTTPS"}]));
    let objects = [
        gateway("g", old, json!([http("any", 80, None)])),
        alone,
        nobody,
        route("r", old, json!(["a.test", "*.b.test"]), json!([path("PathPrefix", "/")])),
    ];
    let built = built_of(&objects, &["10.0.0.0/29".parse().unwrap()]);
    let said = |name: &str| {
        let served = built.served.get(name)?;
        let hosts: Vec<&str> = served.hosts.iter().map(String::as_str).collect();
        Some(format!("{} {} {} {}", served.generation, served.cluster_set, served.addresses.join(","), hosts.join(",")))
    };
    assert_eq!(said("infra/g").as_deref(), Some("0 prod 10.0.0.1 *.b.test,a.test"));
    assert_eq!(said("infra/narrow").as_deref(), Some("7 dev 10.0.0.2 *.shop.test,x.test"));
    assert_eq!(said("infra/nobody"), None, "nothing of it is served");
    let shared = built_of(&objects[..1], &[]);
    assert!(shared.served["infra/g"].addresses.is_empty(), "it shares the replica's");
}

#[test]
fn what_is_over_the_bounds_of_its_namespace_is_refused_alone_and_says_why() {
    use crate::config::NamespaceLimits;
    use crate::objects::Edit;
    use crate::quota::Quota;
    let old = "2026-01-01T00:00:00Z";
    let young = "2026-01-02T00:00:00Z";
    let parents = json!([{"name": "g", "namespace": "infra"}]);
    let named = |kind: &str, name: &str| json!({"kind": kind, "metadata": {"name": name, "namespace": "shop", "creationTimestamp": young}});
    let (mut grpc, mut tls) = (named("GRPCRoute", "calls"), named("TLSRoute", "stream"));
    grpc["spec"] = json!({"parentRefs": parents, "hostnames": ["a.test"], "rules": [
        {"matches": [{"method": {"type": "RegularExpression", "service": "shop[.].*"}}]}]});
    tls["spec"] = json!({"parentRefs": parents, "hostnames": ["s.test"], "rules": [{"backendRefs": []}]});
    let passes = json!({"name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"},
        "allowedRoutes": {"namespaces": {"from": "All"}}});
    let rules = json!([path("RegularExpression", "/x+"), path("PathPrefix", "/admin")]);
    let all = [
        gateway("g", old, json!([http("any", 80, None), passes])),
        route("first", old, json!(["a.test"]), json!([path("PathPrefix", "/")])),
        route("second", young, json!(["a.test", "b.test"]), rules),
        grpc,
        tls,
    ];
    let built = built_with(&all, &[], |objects| {
        Quota::new(NamespaceLimits { routes: 1, ..NamespaceLimits::default() }).derive(objects, &[Edit::Whole]);
    });
    // What they take stays theirs, and is refused.
    for (host, target, expected) in [
        ("a.test", "/", "first 0"),
        ("a.test", "/admin/x", "second 1"),
        ("a.test", "/xx", "second 0"),
        ("a.test", "/shop.Cart/Add", "GRPCRoute shop/calls 0"),
        ("b.test", "/", "no route"),
    ] {
        assert_eq!(taken(&built, Slot::Http, host, target), expected, "{host}{target}");
    }
    let listener = built.table.listener(Slot::Http, "a.test").unwrap();
    let entries = listener.routes.levels("a.test").flat_map(|level| level.iter());
    let why = entries.filter(|e| !e.rule.route.ends_with("first")).map(|e| e.rule.refused.as_ref().unwrap().over());
    assert!(why.into_iter().all(|why| why.unwrap().contains("namespaceRoutes")));
    let streams = &built.table.listener(Slot::Https, "s.test").unwrap().streams;
    assert!(streams.find("s.test").unwrap().over.is_some(), "its clients are refused");
    let statuses = built.statuses.of("HTTPRoute");
    let said: Vec<&Value> = statuses.iter().map(|s: &Value| &s["parents"][0]["conditions"][0]).collect();
    assert_eq!(
        (&said[0]["status"], &said[1]["status"], &said[1]["reason"]),
        (&json!("True"), &json!("False"), &json!("NamespaceLimit"))
    );
    assert!(said[1]["message"].as_str().unwrap().contains("gateway.limits.namespaceRoutes"), "{said:?}");
    let gateways: Vec<Value> = built.statuses.of("Gateway");
    assert_eq!(gateways[0]["listeners"][0]["attachedRoutes"], 1);
}
