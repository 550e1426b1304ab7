//! Cases and properties of the pure part of placement.

use std::collections::BTreeMap;

use atoll_api::kinds::{ClusterSpec, DivisionMode, PlacementRules, Spread, Taint, TaintEffect};
use proptest::prelude::*;

use super::*;

const EACH: Resources = Resources { cpu_milli: 100, memory_bytes: 1, pods: 1 };

fn member(name: &str, region: &str, holds: i32) -> Member {
    Member {
        name: name.into(),
        spec: ClusterSpec { environment: "prod".into(), region: Some(region.into()), ..ClusterSpec::default() },
        labels: BTreeMap::new(),
        standing: Standing::Ready,
        free: Resources { cpu_milli: i64::from(holds) * 100, memory_bytes: 1 << 30, pods: 1000 },
    }
}

fn demand(replicas: i32, mode: DivisionMode) -> Demand {
    let mut rules = PlacementRules::default();
    rules.division.mode = mode;
    Demand { uid: "u".into(), replicas: Some(replicas), each: EACH, rules, current: BTreeMap::new() }
}

fn placed(pairs: &[(&str, i32)]) -> BTreeMap<String, i32> {
    pairs.iter().map(|(c, n)| ((*c).to_owned(), *n)).collect()
}

fn groups(demand: &mut Demand, groups: &[&[&str]]) {
    demand.rules.affinity_groups = groups.iter().map(|g| g.iter().map(|c| (*c).to_owned()).collect()).collect();
}

#[test]
fn the_next_group_takes_only_what_the_one_before_cannot_hold() {
    let mut d = demand(6, DivisionMode::Weighted);
    d.rules.division.weights = BTreeMap::from([("prod-eu".into(), 2), ("prod-us".into(), 1)]);
    groups(&mut d, &[&["prod-eu", "prod-us"], &["dr"]]);
    for (case, eu, us, want, unplaced) in [
        ("room for all", 10, 10, placed(&[("prod-eu", 4), ("prod-us", 2)]), 0),
        ("one is full", 10, 0, placed(&[("prod-eu", 6)]), 0),
        ("both are short", 2, 1, placed(&[("prod-eu", 2), ("prod-us", 1), ("dr", 3)]), 0),
    ] {
        let members = [member("prod-eu", "eu", eu), member("prod-us", "us", us), member("dr", "eu", 10)];
        let verdict = solve(&d, &members);
        assert_eq!((verdict.placed, verdict.unplaced), (want, unplaced), "{case}: {:?}", verdict.why);
    }
}

#[test]
fn a_lost_cluster_is_replaced_and_a_suspect_one_keeps_what_it_has() {
    let mut d = demand(3, DivisionMode::Weighted);
    groups(&mut d, &[&["prod-eu"], &["dr"]]);
    d.current = placed(&[("prod-eu", 3)]);
    for (case, standing, want) in
        [("suspect", Standing::Suspect, placed(&[("prod-eu", 3)])), ("lost", Standing::Lost, placed(&[("dr", 3)]))]
    {
        let mut eu = member("prod-eu", "eu", 10);
        eu.standing = standing;
        assert_eq!(solve(&d, &[eu, member("dr", "eu", 10)]).placed, want, "{case}");
    }
}

#[test]
fn a_cluster_that_is_out_says_why() {
    let mut tainted = member("tainted", "eu", 10);
    tainted.spec.taints = vec![Taint { key: "maintenance".into(), value: None, effect: TaintEffect::NoSchedule }];
    let mut names = member("names", "eu", 10);
    names.standing = Standing::NamesOnly;
    let mut d = demand(1, DivisionMode::Duplicated);
    d.rules.clusters.environments = vec!["prod".into()];
    let mut dev = member("dev", "eu", 10);
    dev.spec.environment = "dev".into();
    let verdict = solve(&d, &[tainted, names, dev, member("full", "eu", 0)]);
    for (cluster, want) in [("tainted", "maintenance"), ("names", "None"), ("dev", "not selected"), ("full", "no room")]
    {
        assert!(verdict.why[cluster].contains(want), "{cluster}: {}", verdict.why[cluster]);
    }
    assert!(verdict.placed.is_empty());
    assert_eq!(verdict.unplaced, 1);
}

#[test]
fn skew_holds_over_regions() {
    let mut d = demand(5, DivisionMode::Capacity);
    d.rules.spread = vec![Spread { by: "region".into(), min: Some(2), max: None, max_skew: Some(1) }];
    let members = [member("a", "eu", 100), member("b", "eu", 100), member("c", "us", 3)];
    let verdict = solve(&d, &members);
    let us = verdict.placed["c"];
    assert!((verdict.placed.values().sum::<i32>() - us - us).abs() <= 1, "{:?}", verdict.placed);
    d.rules.spread[0].min = Some(3);
    assert!(solve(&d, &members).why["a"].contains("needs 3 domains"));
}

#[test]
fn the_last_ready_copy_stays_until_the_new_one_is_ready() {
    let (current, target) = (placed(&[("prod-eu", 3)]), placed(&[("dr", 3)]));
    let step = |eu, ready, keep| {
        let standing = BTreeMap::from([("prod-eu".to_owned(), eu), ("dr".to_owned(), Standing::Ready)]);
        let seen = BTreeMap::from([("dr".to_owned(), Seen { ready, applied: true })]);
        transition(&current, &target, &seen, &standing, keep)
    };
    let dr = ("dr".to_owned(), Assigned { replicas: 3, leaving: false });
    let eu = ("prod-eu".to_owned(), Assigned { replicas: 3, leaving: true });
    assert_eq!(step(Standing::Ready, 2, true), BTreeMap::from([dr.clone(), eu.clone()]));
    assert_eq!(step(Standing::Ready, 3, true), BTreeMap::from([dr.clone()]));
    assert_eq!(step(Standing::Ready, 0, false), BTreeMap::from([dr.clone()]), "the policy may say otherwise");
    assert_eq!(step(Standing::Lost, 3, true), BTreeMap::from([dr, eu]), "it serves again when it is back");
}

#[test]
fn a_cluster_that_is_stabilising_keeps_its_copy() {
    let (current, target) = (placed(&[("dr", 3), ("prod-eu", 3)]), placed(&[("dr", 3)]));
    let standing = BTreeMap::from([("prod-eu".to_owned(), Standing::Stabilising), ("dr".to_owned(), Standing::Ready)]);
    let seen = BTreeMap::from([("dr".to_owned(), Seen { ready: 3, applied: true })]);
    let next = transition(&current, &target, &seen, &standing, true);
    assert_eq!(next["prod-eu"], Assigned { replicas: 3, leaving: true });
}

fn modes() -> impl Strategy<Value = DivisionMode> {
    prop_oneof![Just(DivisionMode::Weighted), Just(DivisionMode::Capacity), Just(DivisionMode::Aggregated)]
}

proptest! {
    #[test]
    fn everything_that_fits_is_placed_and_nothing_more(
        replicas in 0..60i32, mode in modes(), caps in proptest::collection::vec(0..20i32, 1..6), uid in "[a-z]{4}",
    ) {
        let members: Vec<Member> = caps.iter().enumerate().map(|(i, c)| member(&format!("c{i}"), "eu", *c)).collect();
        let mut d = demand(replicas, mode);
        d.uid = uid;
        let verdict = solve(&d, &members);
        let sum: i32 = verdict.placed.values().sum();
        prop_assert_eq!(sum, replicas.min(caps.iter().sum()));
        prop_assert_eq!(verdict.unplaced, replicas - sum);
        for (i, cap) in caps.iter().enumerate() {
            let n = verdict.placed.get(&format!("c{i}")).copied().unwrap_or(0);
            prop_assert!(n <= *cap);
        }
    }

    #[test]
    fn solving_its_own_answer_changes_nothing(
        replicas in 0..60i32, mode in modes(), caps in proptest::collection::vec(0..20i32, 1..6),
    ) {
        let mut members: Vec<Member> = caps.iter().enumerate().map(|(i, c)| member(&format!("c{i}"), "eu", *c)).collect();
        let mut d = demand(replicas, mode);
        let first = solve(&d, &members);
        for m in &mut members {
            let n = first.placed.get(&m.name).copied().unwrap_or(0);
            m.free = m.free.plus(&d.each, -n);
        }
        d.current = first.placed.clone();
        let second = solve(&d, &members);
        prop_assert_eq!(first.placed, second.placed);
    }

    #[test]
    fn the_order_of_members_does_not_matter(replicas in 0..60i32, mode in modes(), caps in proptest::collection::vec(0..20i32, 1..6)) {
        let mut members: Vec<Member> = caps.iter().enumerate().map(|(i, c)| member(&format!("c{i}"), "eu", *c)).collect();
        let d = demand(replicas, mode);
        let first = solve(&d, &members);
        members.reverse();
        prop_assert_eq!(first, solve(&d, &members));
    }
}
