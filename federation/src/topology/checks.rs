//! The shared view of health checks and round-trip times: what the DNS servers report, judged once for everybody.
//!
//! In: the last topology, which says what is checked; what each server found. Out: what every policy's check takes out, and milliseconds
//! by region and member. Quorum, hold-down and distrust are [`atoll_api::health::Judge`]'s; nothing is probed here.

use std::collections::BTreeMap;

use atoll_api::health::{Judge, Measured, Opinion, Votes, targets};
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{FailingFacts, Site, Topology};
use tokio::time::Instant;

use super::sites::Said;

/// Where a policy says nothing, resolvers keep its answers for so long.
const TTL_S: u32 = 5;

/// What was judged.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) failing: BTreeMap<ServiceName, FailingFacts>,
    pub(crate) rtt: BTreeMap<String, BTreeMap<ClusterName, u32>>,
}

/// Remembers what was judged before.
pub(crate) struct Checks {
    judge: Judge,
    measured: Measured,
    started: Instant,
    distrusts: bool,
}

impl Checks {
    pub(crate) fn new(started: Instant) -> Self {
        Self { judge: Judge::default(), measured: Measured::default(), started, distrusts: false }
    }

    /// Judges what is said now.
    pub(crate) fn look(&mut self, topology: Option<&Topology>, said: &[(Site, Said)], now: Instant) -> Checked {
        let Some(topology) = topology else { return Checked::default() };
        let regions = said.iter().filter_map(|(site, said)| {
            let own = site.cluster.as_deref().and_then(|c| topology.clusters.get(c)?.spec.region.as_deref());
            Some((site.region.as_deref().or(own)?, &said.rtt_ms))
        });
        self.measured.fold(regions);
        Checked { failing: self.failing(topology, said, now), rtt: self.measured.regions().clone() }
    }

    fn failing(
        &mut self,
        topology: &Topology,
        said: &[(Site, Said)],
        now: Instant,
    ) -> BTreeMap<ServiceName, FailingFacts> {
        let targets: Vec<_> = targets(topology).into_iter().map(|(policy, t)| (policy, t.key(), t)).collect();
        let hold = |policy: &ServiceName| topology.traffic.get(policy).and_then(|p| p.ttl_seconds).unwrap_or(TTL_S);
        let opinions: Vec<Opinion<'_>> = targets
            .iter()
            .map(|(policy, key, target)| Opinion {
                key,
                group: &target.group,
                hold: std::time::Duration::from_secs(hold(policy).into()),
            })
            .collect();
        let mut votes: BTreeMap<String, Votes> = BTreeMap::new();
        for (key, up) in said.iter().flat_map(|(_, said)| &said.checks) {
            votes.entry(key.clone()).or_default().add(*up);
        }
        let judged = self.judge.judge(&opinions, &votes, now.saturating_duration_since(self.started));
        if judged.distrust != self.distrusts {
            self.distrusts = judged.distrust;
            match judged.distrust {
                true => {
                    tracing::warn!("more than half of all health checks fail: nothing more is taken out of answers")
                }
                false => tracing::info!("most health checks hold again: what fails is taken out of answers again"),
            }
        }
        let mut failing: BTreeMap<ServiceName, FailingFacts> = BTreeMap::new();
        for (policy, key, target) in targets.iter().filter(|(_, key, _)| judged.down.contains(key)) {
            let why = format!("{:?} at port {} fails", target.check.protocol, target.address.port());
            failing.entry(policy.clone()).or_default().insert(target.place(), why);
            tracing::debug!(%policy, key, "health check fails");
        }
        failing
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn topology() -> Topology {
        let mut facts = atoll_api::facts::Facts::default();
        for name in ["eu", "us"] {
            facts.put(
                format!("cluster/{name}"),
                &json!({"name": name, "spec": {"environment": "prod", "region": name}, "ready": true}),
            );
            facts.put(
                format!("endpoints/{name}/shop/web"),
                &json!({"endpoints": [{"address": format!("10.0.0.{}", name.len()), "ready": true}], "ports": [{"protocol": "TCP", "port": 8080}]}),
            );
        }
        facts.put("service/prod/shop/web", &json!({"clusters": ["eu", "us"]}));
        facts.put(
            "traffic/shop/web",
            &json!({"service": "web", "healthCheck": {"protocol": "HTTP", "path": "/ok"}, "ttlSeconds": 9}),
        );
        facts.put("traffic/shop/ip", &json!({"hosts": ["a.example"], "answer": "Addresses", "healthCheck": {"port": 81}, "addresses": [{"address": "192.0.2.7"}]}));
        Topology::from_facts(atoll_api::topology::Version::default(), &facts)
    }

    #[test]
    fn what_the_servers_agree_on_is_taken_out_of_its_policy_alone() {
        let mut topology = topology();
        assert_eq!(topology.unread.len(), 0);
        let second = atoll_api::topology::Endpoints {
            endpoints: vec![serde_json::from_value(json!({"address": "10.0.0.9", "ready": true})).unwrap()],
            ports: topology.endpoints["us"][&ServiceName::new("shop", "web")].ports.clone(),
            ..Default::default()
        };
        topology.endpoints.get_mut("us").unwrap().insert(ServiceName::new("shop", "web"), second.into());
        let keys: Vec<String> = targets(&topology).iter().map(|(_, t)| t.key()).collect();
        assert_eq!(
            keys,
            ["TCP - 192.0.2.7:81 a.example /  ", "HTTP eu 10.0.0.2:8080 - /ok  ", "HTTP us 10.0.0.9:8080 - /ok  "]
        );
        let site = |name: &str| Site {
            instance: name.into(),
            kind: "dns".into(),
            region: Some("eu".into()),
            ..Site::default()
        };
        let say = |well: [bool; 3]| Said {
            checks: keys.iter().cloned().zip(well).collect(),
            rtt_ms: [("us".parse().unwrap(), 80)].into(),
            ..Said::default()
        };
        let start = Instant::now();
        let mut checks = Checks::new(start);
        for (name, said, after, want) in [
            ("nobody says anything", vec![], 0, ""),
            ("all is well", vec![say([true; 3]), say([true; 3])], 1, ""),
            ("one of two finds it ill", vec![say([true, false, true]), say([true; 3])], 2, ""),
            ("both do", vec![say([true, false, true]), say([true, false, true])], 3, "shop/web eu/10.0.0.2"),
            ("back too soon", vec![say([true; 3]), say([true; 3])], 9, "shop/web eu/10.0.0.2"),
            ("back", vec![say([true; 3]), say([true; 3])], 12, ""),
            ("everything", vec![say([false; 3]), say([false; 3])], 60, ""),
        ] {
            let said: Vec<(Site, Said)> =
                said.into_iter().enumerate().map(|(i, s)| (site(&format!("dns-{i}")), s)).collect();
            let checked = checks.look(Some(&topology), &said, start + std::time::Duration::from_secs(after));
            let out = checked.failing.iter().flat_map(|(p, f)| f.keys().map(move |place| format!("{p} {place}")));
            assert_eq!(out.collect::<Vec<_>>().join(" "), want, "{name}");
            assert_eq!(checked.rtt.get("eu").is_some_and(|r| r["us"] == 80), !said.is_empty(), "{name}");
        }
    }
}
