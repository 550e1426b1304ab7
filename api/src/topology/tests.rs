//! A topology after a change is the one that the changed set makes.

use serde_json::{Value, json};

use super::*;

fn facts(items: &[(&str, Value)]) -> Facts {
    let mut facts = Facts::default();
    for (key, value) in items {
        facts.put(*key, value);
    }
    facts
}

fn some() -> Vec<(&'static str, Value)> {
    vec![
        ("settings", json!({"apex": "atoll.internal"})),
        ("cluster/eu", json!({"name": "eu", "spec": {"environment": "prod"}})),
        ("service/prod/shop/web", json!({"clusters": ["eu"]})),
        ("service/prod/shop/cart", json!({"clusters": ["eu"]})),
        ("endpoints/eu/shop/web", json!({"clusterIps": ["10.0.0.1"]})),
        ("endpoints/us/shop/web", json!({"clusterIps": ["10.1.0.1"]})),
        ("traffic/shop/web", json!({"service": "web"})),
        ("site/dns-1", json!({"instance": "dns-1", "kind": "dns"})),
        ("rtt/eu-central", json!({"eu": 7})),
        ("failing/shop/web", json!({"a": "b"})),
        ("records/ops/a", json!({"endpoints": []})),
    ]
}

/// Every typed part, for comparing.
fn show(t: &Topology) -> String {
    format!("{t:?}")
}

#[test]
fn what_a_change_does_not_name_is_shared_and_the_rest_is_as_if_read_anew() {
    let before = facts(&some());
    let first = Topology::from_facts(Version::default(), &before);
    type Edit = fn(&mut Facts);
    let cases: &[(&str, Edit)] = &[
        ("nothing", |_| {}),
        ("an endpoint", |f| {
            f.put("endpoints/eu/shop/web", &json!({"clusterIps": ["10.0.0.2"]}));
        }),
        ("the last service of a member", |f| {
            f.remove("endpoints/us/shop/web");
        }),
        ("a new service", |f| {
            f.put("service/dev/shop/web", &json!({"clusters": ["us"]}));
        }),
        ("something that does not parse", |f| {
            f.put("service/prod/shop/web", &json!({"clusters": 7}));
        }),
        ("an unknown thing", |f| {
            f.put("later/x", &json!({}));
        }),
        ("settings that are gone", |f| {
            f.remove("settings");
        }),
        ("everything gone", |f| {
            for (key, _) in some() {
                f.remove(key);
            }
        }),
    ];
    for (case, edit) in cases {
        let mut after = before.clone();
        edit(&mut after);
        let next = first.after(Version { epoch: 0, generation: 1 }, &before.diff(&after));
        let anew = Topology::from_facts(Version { epoch: 0, generation: 1 }, &after);
        assert_eq!(show(&next), show(&anew), "{case}");
        let back = next.after(Version::default(), &after.diff(&before));
        assert_eq!(show(&back), show(&first), "{case}, and back");
        assert_eq!(show(&next.after(Version::default(), &before.full())), show(&first), "{case}, and all of it anew");
    }
    let mut one = before.clone();
    one.put("endpoints/eu/shop/web", &json!({"clusterIps": ["10.0.0.2"]}));
    let next = first.after(Version::default(), &before.diff(&one));
    assert!(Arc::ptr_eq(&next.clusters["eu"], &first.clusters["eu"]));
    assert!(Arc::ptr_eq(
        &next.endpoints["us"][&ServiceName::new("shop", "web")],
        &first.endpoints["us"][&ServiceName::new("shop", "web")]
    ));
}
