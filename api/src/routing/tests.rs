//! What each policy decides, as cases; what must hold for any chain, as properties.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// name, region, zone, latitude and longitude, environment.
const WORLD: &[(&str, &str, &str, &str, &str, &str)] = &[
    ("prod-eu", "eu-central", "a", "50.11", "8.68", "prod"),
    ("prod-eu2", "eu-central", "b", "52.52", "13.40", "prod"),
    ("prod-us", "us-east", "a", "39.04", "-77.48", "prod"),
    ("prod-ap", "ap-southeast", "a", "-33.87", "151.21", "prod"),
    ("dr", "eu-north", "a", "59.32", "18.06", "dr"),
    ("dev", "eu-central", "a", "50.11", "8.68", "dev"),
];

fn world() -> Vec<ClusterFacts> {
    let facts = |c: &(&str, &str, &str, &str, &str, &str)| {
        serde_json::from_value(json!({"name": c.0, "spec": {
            "environment": c.5, "region": c.1, "zone": c.2, "location": {"latitude": c.3, "longitude": c.4}}}))
        .unwrap()
    };
    WORLD.iter().map(facts).collect()
}

fn chain(steps: Value) -> Result<Chain, BadPolicy> {
    Chain::parse(&serde_json::from_value::<Vec<Step>>(steps).unwrap(), None)
}

/// Tiers as text: `a=b > c`.
fn check(asker: &Asker<'_>, down: &[&str], chain: &Chain) -> String {
    let world = world();
    let candidate = |cluster| Candidate { cluster, ready: true, endpoints: 1 };
    let mut candidates: Vec<Candidate<'_>> = world.iter().map(candidate).collect();
    for c in &mut candidates {
        c.ready = !down.contains(&c.cluster.name.as_str());
    }
    let choice = choose(asker, &candidates, chain);
    let tier = |t: &Vec<usize>| t.iter().map(|i| candidates[*i].name()).collect::<Vec<_>>().join("=");
    let tiers: Vec<String> = choice.tiers.iter().map(tier).collect();
    format!("{}{}", if choice.last_resort { "! " } else { "" }, tiers.join(" > "))
}

fn standing(cluster: Option<&'static str>, region: &'static str, zone: Option<&'static str>) -> Asker<'static> {
    Asker { cluster, set: "prod", region: Some(region), zone, ..Asker::default() }
}

#[test]
fn without_a_policy_the_nearest_active_cluster_serves() {
    let all = &["prod-eu", "prod-eu2", "prod-us", "prod-ap", "dr"][..];
    for (name, asker, down, want) in [
        (
            "own cluster",
            standing(Some("prod-eu2"), "eu-central", None),
            &[][..],
            "prod-eu2 > prod-eu > prod-us > prod-ap > dr",
        ),
        ("own zone", standing(None, "eu-central", Some("a")), &[], "prod-eu > prod-eu2 > prod-us > prod-ap > dr"),
        ("own region", standing(None, "eu-central", None), &[], "prod-eu=prod-eu2 > prod-us > prod-ap > dr"),
        ("own one down", standing(None, "eu-central", Some("a")), &["prod-eu"], "prod-eu2 > prod-us > prod-ap > dr"),
        ("only standby left", standing(None, "eu-central", None), &all[..4], "dr"),
        ("unknown region", standing(None, "mars", None), &[], "prod-ap=prod-eu=prod-eu2=prod-us > dr"),
        ("all down", standing(None, "us-east", None), all, "! prod-us > prod-eu > prod-eu2 > prod-ap > dr"),
        ("other set", Asker { set: "dev", ..Asker::default() }, &[], "dev"),
        ("no such set", Asker { set: "lab", ..Asker::default() }, &[], ""),
        (
            "a place on earth",
            Asker { set: "prod", location: Some((48.85, 2.35)), ..Asker::default() },
            &[],
            "prod-eu > prod-eu2 > prod-us > prod-ap > dr",
        ),
    ] {
        assert_eq!(check(&asker, down, &Chain::default()), want, "{name}");
    }
}

#[test]
fn each_policy_does_what_its_help_says() {
    let eu = standing(None, "eu-central", Some("a"));
    for (name, steps, down, want) in [
        (
            "failover",
            json!([{"policy": "failover", "groups": [["prod-us", "prod-eu"], ["dr"]]}]),
            &[][..],
            "prod-eu=prod-us > dr",
        ),
        (
            "failover then nearest",
            json!([{"policy": "failover", "groups": [["prod-us", "prod-eu"], ["dr"]]}, {"policy": "nearest"}]),
            &[],
            "prod-eu > prod-us > dr",
        ),
        (
            "failover, first group down",
            json!([{"policy": "failover", "groups": [["prod-us", "prod-eu"], ["dr"]]}]),
            &["prod-eu", "prod-us"],
            "dr",
        ),
        (
            "failover may put standby first",
            json!([{"policy": "failover", "groups": [["dr"], ["prod-eu"]]}]),
            &[],
            "dr > prod-eu",
        ),
        (
            "failover never leaves the set",
            json!([{"policy": "failover", "groups": [["dev"], ["prod-eu"]]}]),
            &[],
            "prod-eu",
        ),
        ("geofence by own region", json!([{"policy": "geofence"}]), &[], "prod-eu=prod-eu2"),
        ("geofence is hard", json!([{"policy": "geofence"}]), &["prod-eu", "prod-eu2"], "! prod-eu=prod-eu2"),
        (
            "geofence by selector",
            json!([{"policy": "geofence", "only": {"regions": ["us-east", "eu-north"]}}]),
            &[],
            "prod-us > dr",
        ),
        (
            "geofence for others",
            json!([{"policy": "geofence", "only": {"regions": ["us-east"]}, "from": ["ap-southeast"]}, {"policy": "nearest"}]),
            &["prod-ap", "prod-eu2"],
            "prod-eu > prod-us > dr",
        ),
    ] {
        assert_eq!(check(&eu, down, &chain(steps).unwrap()), want, "{name}");
    }
}

#[test]
fn weights_hold_over_many_questions_and_zero_waits() {
    let weighted =
        chain(json!([{"policy": "weighted", "weights": {"prod-eu": 3, "prod-us": 1, "prod-ap": 0, "prod-eu2": 0}}]))
            .unwrap();
    let mut first = std::collections::BTreeMap::<String, u32>::new();
    for dice in 0..8000u64 {
        let asker = Asker { dice, ..standing(None, "eu-central", None) };
        let order = check(&asker, &["dr"], &weighted);
        *first.entry(order.split(" > ").next().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(first.keys().collect::<Vec<_>>(), ["prod-eu", "prod-us"]);
    assert!((5760..6240).contains(&first["prod-eu"]), "{first:?}");
    assert_eq!(
        check(&standing(None, "eu-central", None), &["prod-eu", "prod-us", "prod-eu2", "dr"], &weighted),
        "prod-ap"
    );
}

#[test]
fn a_bad_strategy_is_refused_and_says_what_is_wrong() {
    for (steps, words) in [
        (json!([{"policy": "closest"}]), "policy `closest`: unknown, there are failover,"),
        (json!([{"policy": "failover"}]), "policy `failover`: missing field `groups`"),
        (json!([{"policy": "failover", "groups": [[]]}]), "name at least one"),
        (json!([{"policy": "failover", "groups": [["a"], ["a"]]}]), "`a` is named twice"),
        (json!([{"policy": "nearest", "to": "me"}]), "unknown field `to`"),
        (json!([{"policy": "weighted", "weights": {"a": 0}}]), "more than 0"),
        (json!([{"policy": "weighted", "weights": {"a": -1}}]), "policy `weighted`: invalid value"),
        (json!([{"policy": "latency"}]), "not measured yet"),
    ] {
        let refusal = chain(steps).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
}

fn any_chain() -> impl Strategy<Value = Value> {
    let step = prop_oneof![
        Just(json!({"policy": "nearest"})),
        Just(json!({"policy": "sticky"})),
        Just(json!({"policy": "weighted", "weights": {"prod-eu": 5, "dr": 0}})),
        Just(json!({"policy": "geofence", "only": {"environments": ["prod"]}})),
        Just(json!({"policy": "failover", "groups": [["prod-us", "dev"], ["prod-eu", "dr"]]})),
    ];
    proptest::collection::vec(step, 0..4).prop_map(Value::Array)
}

proptest! {
    #[test]
    fn any_choice_stays_in_the_set_and_asks_nobody_twice(
        steps in any_chain(),
        ready in proptest::collection::vec(any::<bool>(), 6),
        endpoints in proptest::collection::vec(0usize..3, 6),
        set in prop_oneof![Just("prod"), Just("dev")],
        (client, dice) in (any::<u64>(), any::<u64>()),
        rotate in 0usize..6,
    ) {
        let world = world();
        let asker = Asker { set, region: Some("us-east"), client, dice, ..Asker::default() };
        let mut candidates: Vec<Candidate<'_>> =
            (0..6).map(|i| Candidate { cluster: &world[i], ready: ready[i], endpoints: endpoints[i] }).collect();
        let chain = chain(steps).unwrap();
        let choice = choose(&asker, &candidates, &chain);
        let mut seen = std::collections::BTreeSet::new();
        for i in choice.tiers.iter().flatten() {
            prop_assert_eq!(candidates[*i].cluster.set(), set);
            prop_assert!(candidates[*i].endpoints > 0);
            prop_assert!(candidates[*i].ready || choice.last_resort);
            prop_assert!(seen.insert(*i));
        }
        prop_assert!(choice.tiers.iter().all(|t| !t.is_empty()));
        let name = |cs: &[Candidate<'_>], c: &Choice| -> Vec<Vec<String>> {
            c.tiers.iter().map(|t| t.iter().map(|i| cs[*i].name().to_owned()).collect()).collect()
        };
        let before = name(&candidates, &choice);
        candidates.rotate_left(rotate);
        prop_assert_eq!(before, name(&candidates, &choose(&asker, &candidates, &chain)));
    }

    #[test]
    fn a_sticky_client_moves_only_when_its_cluster_goes(client in any::<u64>(), gone in 0usize..5) {
        let sticky = chain(json!([{"policy": "sticky"}])).unwrap();
        let asker = Asker { client, ..standing(None, "eu-central", None) };
        let before = check(&asker, &[], &sticky);
        let after = check(&asker, &[WORLD[gone].0], &sticky);
        let rest: Vec<&str> = before.split(" > ").filter(|c| *c != WORLD[gone].0).collect();
        prop_assert_eq!(rest.join(" > "), after);
    }
}
