//! Which TrafficPolicies count, and for what: of several for the same service or host the oldest that makes sense, then the first by name. Pure.
//!
//! In: all of them. Out: those that count, without the hosts that others have; and a condition for each. Source: GEP-713 (conflicts).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::kinds::{TrafficPolicy, TrafficPolicySpec, check_subsets};
use kube::ResourceExt as _;

use super::rules::{is_domain, word};
use crate::conditions::{Found, listed};

/// What somebody has a policy for: a service by its namespace and name, or a host.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Claim {
    Service(String, String),
    Host(String),
}

/// A policy, and what became of it.
pub(crate) struct Judged {
    pub(crate) policy: Arc<TrafficPolicy>,
    verdict: Result<Vec<Lost>, String>,
}

/// What another policy has.
struct Lost {
    claim: Claim,
    to: String,
}

/// Judges all of them; in the order of their age.
pub(crate) fn judge(mut all: Vec<Arc<TrafficPolicy>>) -> Vec<Judged> {
    all.sort_by_cached_key(|p| (p.creation_timestamp().map(|t| t.0), p.namespace(), p.name_any()));
    let mut owners: HashMap<Claim, String> = HashMap::new();
    let mut judged = Vec::with_capacity(all.len());
    for policy in all {
        let verdict = check(&policy.spec).map(|()| {
            let name = format!("{}/{}", policy.namespace().unwrap_or_default(), policy.name_any());
            let mut lost = Vec::new();
            for claim in claims(&policy) {
                match owners.get(&claim) {
                    Some(owner) if *owner != name => lost.push(Lost { claim, to: owner.clone() }),
                    _ => drop(owners.insert(claim, name.clone())),
                }
            }
            lost
        });
        judged.push(Judged { policy, verdict });
    }
    judged
}

impl Judged {
    /// The policy as far as it counts; nothing where it does not.
    pub(crate) fn counts(&self) -> Option<Arc<TrafficPolicy>> {
        let lost = self.verdict.as_ref().ok()?;
        if lost.is_empty() {
            return Some(Arc::clone(&self.policy));
        }
        let has =
            |host: &String| !lost.iter().any(|l| matches!(&l.claim, Claim::Host(lost) if *lost == canonical(host)));
        let hosts: Vec<String> = self.policy.spec.hosts.iter().filter(|host| has(host)).cloned().collect();
        let spec = TrafficPolicySpec { hosts, ..self.policy.spec.clone() };
        (!spec.hosts.is_empty()).then(|| Arc::new(TrafficPolicy { spec, ..TrafficPolicy::clone(&self.policy) }))
    }

    /// The condition Accepted.
    pub(crate) fn found(&self) -> Found {
        let lost = match &self.verdict {
            Ok(lost) if lost.is_empty() => return word(Ok(())),
            Ok(lost) => lost,
            Err(why) => return word(Err(why.clone())),
        };
        let says = |l: &Lost| match &l.claim {
            Claim::Service(_, name) => {
                format!("TrafficPolicy `{}` of service `{name}` is older and counts alone", l.to)
            }
            Claim::Host(host) => format!("TrafficPolicy `{}` of host `{host}` is older and counts there alone", l.to),
        };
        let says = listed(lost.iter().map(says).collect());
        let some = self.counts().is_some();
        Found::new("Accepted", some, if some { "PartiallyConflicted" } else { "Conflicted" }, says)
    }
}

fn claims(policy: &TrafficPolicy) -> impl Iterator<Item = Claim> {
    let namespace = policy.namespace().unwrap_or_default();
    let service = policy.spec.service.iter().map(move |name| Claim::Service(namespace.clone(), name.clone()));
    service.chain(policy.spec.hosts.iter().map(|host| Claim::Host(canonical(host))))
}

/// Names are the same whatever their case, and with the dot of the root or without.
fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether it makes sense by itself.
fn check(spec: &TrafficPolicySpec) -> Result<(), String> {
    if let Some(bad) = spec.hosts.iter().find(|h| !is_domain(h.strip_prefix("*.").unwrap_or(h))) {
        return Err(format!("host `{bad}` is not a domain name"));
    }
    let target = |address: &str| address.parse::<IpAddr>().is_ok() || is_domain(address);
    if let Some(bad) = spec.addresses.iter().map(|a| &a.address).chain(&spec.fallback).find(|a| !target(a)) {
        return Err(format!("address `{bad}` is neither an IP address nor a domain name"));
    }
    if let Some(bad) = spec.fallback.iter().find(|a| a.parse::<IpAddr>().is_err()) {
        return Err(format!("fallback `{bad}` is not an IP address"));
    }
    if let Some(check) = &spec.health_check {
        atoll_api::health::Check::parse(check, &spec.hosts)?;
    }
    check_subsets(&spec.subsets)?;
    spec.check_load()?;
    atoll_api::routing::Chain::parse(&spec.strategy, spec.all_down).map(drop).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(name: &str, minute: u8, spec: Value) -> Arc<TrafficPolicy> {
        let object = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "TrafficPolicy", "spec": spec,
            "metadata": {"namespace": "shop", "name": name, "creationTimestamp": format!("2026-01-01T00:{minute:02}:00Z")}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_a_schema_cannot_check_is_refused_with_the_word_that_is_wrong() {
        let subset = |key: &str| json!({"service": "web", "subsets": [{"name": "v2", "labels": {key: "2"}}]});
        for (spec, says) in [
            (json!({"hosts": ["shop.example.com"], "strategy": [{"policy": "nearest"}]}), ""),
            (json!({"hosts": ["*.example.com"]}), ""),
            (json!({"hosts": ["shop..com"]}), "host `shop..com`"),
            (json!({"hosts": ["shop.example.com"], "strategy": [{"policy": "astrology"}]}), "astrology"),
            (json!({"service": "web", "slowStart": "soon"}), "slowStart"),
            (json!({"service": "web", "outlier": {"ejection": "2m", "ejectionMax": "1m"}}), "at most ejectionMax"),
            (subset("example.com/version"), ""),
            (subset("example.com/"), "subset `v2`: `example.com/` is no key"),
        ] {
            let judged = judge(vec![policy("a", 0, spec)]);
            let found = judged[0].found();
            assert_eq!(
                (found.status, judged[0].counts().is_some()),
                if says.is_empty() { ("True", true) } else { ("False", false) }
            );
            assert!(found.message.contains(says), "{says}: {}", found.message);
        }
    }

    #[test]
    fn the_oldest_of_a_service_counts_and_the_others_say_so() {
        let web = |name, minute, limit| policy(name, minute, json!({"service": "web", "limit": limit}));
        let bad = policy("bad", 0, json!({"service": "web", "strategy": [{"policy": "astrology"}]}));
        let judged =
            judge(vec![web("a-new", 9, 1), web("z-old", 3, 2), bad, policy("cart", 5, json!({"service": "cart"}))]);
        let said: Vec<_> =
            judged.iter().map(|j| (j.policy.name_any(), j.found().reason, j.counts().is_some())).collect();
        let expected = [
            ("bad", "Invalid", false),
            ("z-old", "Accepted", true),
            ("cart", "Accepted", true),
            ("a-new", "Conflicted", false),
        ];
        assert_eq!(said, expected.map(|(name, reason, counts)| (name.to_owned(), reason, counts)));
        assert_eq!(judged[3].found().message, "TrafficPolicy `shop/z-old` of service `web` is older and counts alone");
    }

    #[test]
    fn a_host_that_an_older_policy_has_is_left_out_alone() {
        let old = policy("old", 1, json!({"hosts": ["A.example.com", "b.example.com"]}));
        let new = policy("new", 2, json!({"hosts": ["a.example.com.", "c.example.com", "C.example.com"]}));
        let judged = judge(vec![new, old]);
        assert_eq!(judged[1].counts().unwrap().spec.hosts, ["c.example.com", "C.example.com"]);
        let found = judged[1].found();
        assert_eq!((found.status, found.reason), ("True", "PartiallyConflicted"));
        assert!(found.message.contains("`shop/old` of host `a.example.com`"), "{}", found.message);
    }
}
