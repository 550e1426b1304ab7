//! The rule of whom to believe, as cases.

use super::*;
use crate::topology::ClusterFacts;

fn topology(ready: &[(&str, bool)]) -> Topology {
    let mut t = Topology::default();
    for (name, ready) in ready {
        let facts = serde_json::json!({"name": name, "spec": {"environment": "prod"}, "ready": ready});
        let facts: ClusterFacts = serde_json::from_value(facts).unwrap();
        t.clusters.insert(facts.name.clone(), facts.into());
    }
    t
}

fn probes(up: &[(&str, bool)]) -> BTreeMap<ClusterName, Probe> {
    up.iter().map(|(name, up)| (name.parse().unwrap(), Probe::new(*up))).collect()
}

#[test]
fn the_hub_is_believed_while_fresh_and_own_eyes_after() {
    let topology = topology(&[("a", true), ("b", false), ("c", true)]);
    let seconds = |s| Some(Duration::from_secs(s));
    let split = [("a", false), ("b", true)];
    for (name, silence, own, source, ready) in [
        ("fresh", seconds(0), &split[..], Source::Hub, "a c"),
        ("fresh to the last second", seconds(15), &split, Source::Hub, "a c"),
        ("stale", seconds(16), &split, Source::Probes, "b c"),
        ("never heard in this life", None, &split, Source::Probes, "b c"),
        ("stale, nothing probed", seconds(60), &[], Source::Panic, "a c"),
        ("stale, all our probes fail", seconds(60), &[("a", false), ("b", false)], Source::Panic, "a c"),
        ("a member that has left does not vote", None, &[("a", false), ("gone", true)], Source::Panic, "a c"),
    ] {
        let view = HealthView::new(&topology, silence, &probes(own), &Rules::default());
        assert_eq!(view.source(), source, "{name}");
        let up: Vec<&str> = ["a", "b", "c"].into_iter().filter(|c| view.ready(c)).collect();
        assert_eq!(up.join(" "), ready, "{name}");
    }
}

#[test]
fn a_probe_falls_after_three_and_rises_after_two() {
    let rules = Rules::default();
    let mut probe = Probe::default();
    let mut seen = String::new();
    for c in "..x.xx.xxxx.x..x..".chars() {
        probe.observe(c == '.', &rules);
        seen.push(if probe.up() { 'U' } else { 'd' });
    }
    assert_eq!(seen, "UUUUUUUUUdddddUUUU");
}
