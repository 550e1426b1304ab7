//! Routes, expressions and certificates of namespaces that are within their bounds, and over them.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::objects::{HttpRoute, Kept, TcpRoute};

const LIMITS: NamespaceLimits = NamespaceLimits { routes: 2, regex_bytes: 8 * 1024, certificates: 2 };

fn put<K: Kept + DeserializeOwned>(objects: &mut Objects, object: Value) -> Vec<Edit> {
    let object: K = serde_json::from_value(object).unwrap();
    let name = crate::objects::name_of(&object);
    objects.take(&name, Some(Arc::new(object)))
}

fn meta(namespace: &str, name: &str, day: u8) -> Value {
    json!({"namespace": namespace, "name": name, "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z")})
}

fn route(namespace: &str, name: &str, day: u8, pattern: Option<&str>) -> Value {
    let path = pattern.map_or(json!({"value": "/"}), |value| json!({"type": "RegularExpression", "value": value}));
    json!({"metadata": meta(namespace, name, day), "spec": {"rules": [{"matches": [{"path": path}]}]}})
}

fn over(objects: &Objects) -> Vec<String> {
    objects.over.routes.keys().map(|(_, (namespace, name))| format!("{namespace}/{name}")).collect()
}

fn edited(names: &[&str]) -> Vec<Edit> {
    names.iter().map(|name| Edit::Route(Kind::Http, ("a".to_owned(), (*name).to_owned()))).collect()
}

#[test]
fn the_oldest_routes_of_a_namespace_stay_and_who_is_over_comes_when_there_is_room() {
    let (mut quota, mut objects) = (Quota::new(LIMITS), Objects::default());
    for (namespace, name, day) in [("a", "old", 1), ("a", "young", 3), ("b", "only", 9)] {
        put::<HttpRoute>(&mut objects, route(namespace, name, day, None));
    }
    assert_eq!(quota.derive(&mut objects, &[Edit::Whole]), []);
    assert_eq!(over(&objects), Vec::<String>::new());

    // Of another kind, older than one that is there.
    put::<TcpRoute>(&mut objects, json!({"metadata": meta("a", "middle", 2), "spec": {"rules": []}}));
    let edit = Edit::Route(Kind::Tcp, ("a".to_owned(), "middle".to_owned()));
    assert_eq!(quota.derive(&mut objects, &[edit]), edited(&["young"]));
    assert_eq!(over(&objects), ["a/young"], "the other namespace is not concerned");
    let why = objects.over.routes.values().next().unwrap();
    assert!(why.contains("namespace `a` may have 2 routes") && why.contains("gateway.limits.namespaceRoutes"), "{why}");

    let gone = ("a".to_owned(), "old".to_owned());
    let edits = objects.take::<HttpRoute>(&gone, None);
    assert_eq!(quota.derive(&mut objects, &edits), edited(&["young"]));
    assert_eq!(over(&objects), Vec::<String>::new());
}

#[test]
fn expressions_count_by_their_size_and_routes_without_any_go_on() {
    let (mut quota, mut objects) = (Quota::new(NamespaceLimits { routes: 0, ..LIMITS }), Objects::default());
    put::<HttpRoute>(&mut objects, route("a", "first", 1, Some("/a")));
    put::<HttpRoute>(&mut objects, route("a", "large", 2, Some("/[a-z]{200}")));
    put::<HttpRoute>(&mut objects, route("a", "small", 3, Some("/b")));
    put::<HttpRoute>(&mut objects, route("a", "none", 4, None));
    put::<HttpRoute>(&mut objects, route("a", "broken", 5, Some("(")));
    assert_eq!(quota.derive(&mut objects, &[Edit::Whole]), edited(&["large"]));
    assert!(objects.over.routes.values().all(|why| why.contains("8 KiB") && why.contains("namespaceRegexKiB")));

    // It is written anew, and smaller.
    let edits = put::<HttpRoute>(&mut objects, route("a", "large", 2, Some("/c")));
    assert_eq!(quota.derive(&mut objects, &edits), edited(&["large", "small"]));
    assert_eq!(over(&objects), ["a/small"], "the older one has the room now");
}

#[test]
fn certificates_of_the_oldest_gateways_are_shown() {
    use atoll_api::kinds::gateway::Gateway;
    let (mut quota, mut objects) = (Quota::new(LIMITS), Objects::default());
    let gateway = |namespace: &str, name: &str, day, refs: &[&str]| {
        let refs: Vec<Value> = refs.iter().map(|name| json!({"name": name})).collect();
        json!({"metadata": meta(namespace, name, day), "spec": {"gatewayClassName": "atoll", "listeners": [
            {"name": "l", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": refs}}]}})
    };
    put::<Gateway>(&mut objects, gateway("a", "young", 2, &["third", "first", "fourth"]));
    put::<Gateway>(&mut objects, gateway("a", "old", 1, &["first", "second", "first"]));
    put::<Gateway>(&mut objects, gateway("b", "other", 3, &["third"]));
    quota.derive(&mut objects, &[Edit::Whole]);
    let names: Vec<_> =
        objects.over.certificates.keys().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
    assert_eq!(names, ["a/fourth", "a/third"]);
}
