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
    let candidate = |cluster| Candidate::new(cluster, true, 1);
    let mut candidates: Vec<Candidate<'_>> = world.iter().map(candidate).collect();
    for c in &mut candidates {
        c.ready = !down.contains(&c.cluster.name.as_str());
    }
    let choice = choose(asker, &candidates, chain);
    let tier = |t: &Vec<usize>| t.iter().map(|i| candidates[*i].name()).collect::<Vec<_>>().join("=");
    let tiers: Vec<String> = choice.tiers.iter().map(tier).collect();
    format!("{}{}", if choice.resort.is_some() { "! " } else { "" }, tiers.join(" > "))
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
        (
            "nearest with neighbours",
            json!([{"policy": "nearest", "neighbours": {"eu-central": ["ap-southeast", "us-east"]}}]),
            &["prod-eu2"],
            "prod-eu > prod-ap > prod-us > dr",
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
fn weights_hold_exactly_over_the_slots_and_are_shared_out_anew_when_somebody_is_down() {
    for (name, weights, slots, down, want) in [
        (
            "3 to 1",
            json!({"prod-eu": 3, "prod-us": 1, "prod-ap": 0, "prod-eu2": 0, "dr": 0}),
            120,
            &[][..],
            &[("prod-eu", 90), ("prod-us", 30)][..],
        ),
        (
            "percent",
            json!({"prod-eu": 33, "prod-us": 67, "prod-ap": 0, "prod-eu2": 0}),
            100,
            &[],
            &[("prod-eu", 33), ("prod-us", 67)],
        ),
        (
            "no weight is 1",
            json!({"prod-eu": 2}),
            120,
            &[],
            &[("prod-ap", 24), ("prod-eu", 48), ("prod-eu2", 24), ("prod-us", 24)],
        ),
        (
            "one down",
            json!({"prod-eu": 5, "prod-us": 2, "prod-ap": 1, "prod-eu2": 0}),
            120,
            &["prod-eu"],
            &[("prod-ap", 40), ("prod-us", 80)],
        ),
        (
            "zero waits",
            json!({"prod-eu": 1, "prod-us": 0, "prod-ap": 0, "prod-eu2": 0}),
            120,
            &["prod-eu", "prod-ap"],
            &[("prod-eu2", 60), ("prod-us", 60)],
        ),
        (
            "more than slots",
            json!({"prod-eu": 999_999, "prod-us": 1, "prod-ap": 0, "prod-eu2": 0}),
            120,
            &[],
            &[("prod-eu", 120)],
        ),
    ] {
        let weighted = chain(json!([{"policy": "weighted", "weights": weights}])).unwrap();
        assert_eq!(weighted.key(), Key::Slots(slots), "{name}");
        let mut first = BTreeMap::<String, u32>::new();
        for slot in 0..u64::from(slots) {
            let order = |dice| check(&Asker { dice, ..standing(None, "eu-central", None) }, down, &weighted);
            assert_eq!(order(slot), order(slot + 7 * u64::from(slots)), "{name}: nothing but the slot decides");
            *first.entry(order(slot).split(" > ").next().unwrap().to_owned()).or_default() += 1;
        }
        let first: Vec<(&str, u32)> = first.iter().map(|(c, n)| (c.as_str(), *n)).collect();
        assert_eq!(first, want, "{name}");
    }
}

#[test]
fn sticky_weights_hold_over_many_clients() {
    let weights = json!({"prod-eu": 3, "prod-us": 1, "prod-ap": 0, "prod-eu2": 0});
    let sticky = chain(json!([{"policy": "sticky", "weights": weights}])).unwrap();
    assert_eq!(sticky.key(), Key::Client);
    let mut first = BTreeMap::<String, u32>::new();
    for client in 0..8000u64 {
        let order = check(&Asker { client, ..standing(None, "eu-central", None) }, &["dr"], &sticky);
        *first.entry(order.split(" > ").next().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(first.keys().collect::<Vec<_>>(), ["prod-eu", "prod-us"]);
    assert!((5760..6240).contains(&first["prod-eu"]), "{first:?}");
}

#[test]
fn latency_goes_by_what_was_measured_from_the_askers_region() {
    let rtt = |all: &[(&str, u32)]| -> BTreeMap<ClusterName, u32> {
        all.iter().map(|(name, ms)| (name.parse().unwrap(), *ms)).collect()
    };
    let measured = rtt(&[("prod-eu", 90), ("prod-us", 30), ("prod-ap", 38)]);
    for (name, steps, cluster, rtt, want) in [
        (
            "as measured",
            json!([{"policy": "latency"}]),
            None,
            Some(&measured),
            "prod-ap=prod-us > prod-eu > prod-eu2 > dr",
        ),
        (
            "exactly",
            json!([{"policy": "latency", "toleranceMs": 0}]),
            None,
            Some(&measured),
            "prod-us > prod-ap > prod-eu > prod-eu2 > dr",
        ),
        (
            "own cluster first",
            json!([{"policy": "latency"}]),
            Some("prod-eu2"),
            Some(&measured),
            "prod-eu2 > prod-ap=prod-us > prod-eu > dr",
        ),
        ("nobody measured", json!([{"policy": "latency"}]), None, None, "prod-eu=prod-eu2 > prod-us > prod-ap > dr"),
    ] {
        let asker = Asker { rtt, ..standing(cluster, "eu-central", None) };
        assert_eq!(check(&asker, &[], &chain(steps).unwrap()), want, "{name}");
    }
}

#[test]
fn the_all_down_rule_decides_when_nobody_is_usable() {
    let world = world();
    // prod-eu was good last and has nothing now; prod-us is down with endpoints; prod-ap is up with one that is not ready.
    let candidates = [
        Candidate { last_good: true, ..Candidate::new(&world[0], true, 0) },
        Candidate::new(&world[2], false, 3),
        Candidate { unready: 1, ..Candidate::new(&world[3], true, 0) },
    ];
    let asker = standing(None, "eu-central", None);
    for (rule, from, resort, want) in [
        (AllDown::LastGood, 0, Some(Resort::LastGood), &["prod-eu"][..]),
        (AllDown::LastGood, 1, Some(Resort::LastGood), &["prod-us"]),
        (AllDown::LastGood, 2, None, &[]),
        (AllDown::All, 0, Some(Resort::All), &["prod-us", "prod-ap"]),
        (AllDown::Fallback, 0, None, &[]),
        (AllDown::None, 0, None, &[]),
    ] {
        let candidates = &candidates[from..];
        let choice = choose(&asker, candidates, &Chain::parse(&[], Some(rule)).unwrap());
        let names: Vec<&str> = choice.tiers.iter().flatten().map(|i| candidates[*i].name()).collect();
        assert_eq!((choice.resort, names.as_slice(), choice.fenced), (resort, want, false), "{rule:?} from {from}");
    }
    let fence =
        Chain::parse(&serde_json::from_value::<Vec<Step>>(json!([{"policy": "geofence"}])).unwrap(), None).unwrap();
    let abroad = choose(&asker, &[Candidate::new(&world[2], true, 1)], &fence);
    assert!(abroad.fenced && abroad.tiers.is_empty(), "a border holds whatever is down");
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
        (json!([{"policy": "latency", "toleranceMs": -1}]), "policy `latency`: invalid value"),
        (json!([{"policy": "sticky", "weights": {"a": 0}}]), "policy `sticky`: weights: give at least"),
        (json!([{"policy": "nearest", "neighbours": ["a"]}]), "policy `nearest`: invalid type"),
    ] {
        let refusal = chain(steps).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
}

fn any_chain() -> impl Strategy<Value = Value> {
    let step = prop_oneof![
        Just(json!({"policy": "nearest"})),
        Just(json!({"policy": "sticky"})),
        Just(json!({"policy": "latency", "toleranceMs": 5})),
        Just(json!({"policy": "sticky", "weights": {"prod-us": 3, "prod-ap": 0}})),
        Just(json!({"policy": "nearest", "neighbours": {"us-east": ["ap-southeast"]}})),
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
            (0..6).map(|i| Candidate::new(&world[i], ready[i], endpoints[i])).collect();
        let chain = chain(steps).unwrap();
        let choice = choose(&asker, &candidates, &chain);
        let mut seen = std::collections::BTreeSet::new();
        for i in choice.tiers.iter().flatten() {
            prop_assert_eq!(candidates[*i].cluster.set(), set);
            prop_assert!(candidates[*i].endpoints > 0);
            prop_assert!(candidates[*i].ready || choice.resort.is_some());
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
    fn a_change_of_one_weight_moves_clients_only_to_or_from_that_cluster(client in any::<u64>(), before in 1u32..50, after in 0u32..50) {
        let of = |weight: u32| {
            let sticky = chain(json!([{"policy": "sticky", "weights": {"prod-us": weight, "prod-eu": 7}}])).unwrap();
            let order = check(&Asker { client, ..standing(None, "eu-central", None) }, &["dr"], &sticky);
            order.split(" > ").next().unwrap().to_owned()
        };
        let (was, is) = (of(before), of(after));
        prop_assert!(was == is || (after > before && is == "prod-us") || (after < before && was == "prod-us"), "{} {}", was, is);
    }

    #[test]
    fn the_rest_of_a_weighted_order_is_what_is_left_without_the_first(dice in any::<u64>()) {
        let weighted = chain(json!([{"policy": "weighted", "weights": {"prod-eu": 4, "prod-us": 2, "prod-ap": 1}}])).unwrap();
        let asker = Asker { dice, ..standing(None, "eu-central", None) };
        let order = check(&asker, &["dr"], &weighted);
        let (first, rest) = order.split_once(" > ").unwrap();
        prop_assert_eq!(rest, check(&asker, &["dr", first], &weighted));
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
