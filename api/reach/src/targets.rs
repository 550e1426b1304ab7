//! Which addresses of each member tell whether it can be reached directly: one rule for the hub, DNS servers and gateways.
//!
//! In: topologies as they come. Out: the prober's targets, and through it the routes. Never decides a route itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::Reach;
use atoll_api::topology::Topology;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::probe::{Prober, Routes, Target, Want};
use crate::stream::Connect;

const EVERY: Duration = Duration::from_secs(10);
/// Addresses tried per member and group.
const SAMPLES: usize = 4;

/// Keeps `routes` current with the topology that `of` finds in each value of `topology`, until `shutdown`.
pub async fn probe_members<T: Send + Sync + 'static>(
    connect: Arc<dyn Connect>,
    mut topology: watch::Receiver<T>,
    of: impl Fn(&T) -> Option<Arc<Topology>> + Send,
    routes: Routes,
    shutdown: CancellationToken,
) {
    let (sender, targets) = watch::channel(Arc::new(HashMap::new()));
    let follow = async {
        loop {
            let now = of(&topology.borrow_and_update());
            if let Some(found) = now.map(|topology| targets_of(&topology)) {
                sender.send_if_modified(|held| {
                    let changed = **held != found;
                    if changed {
                        *held = Arc::new(found);
                    }
                    changed
                });
            }
            if topology.changed().await.is_err() {
                // The last targets stay.
                return std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = Prober::new(connect, targets, routes, EVERY).run(shutdown.clone()) => {}
        () = follow => {}
        () = shutdown.cancelled() => {}
    }
}

/// What the prober needs to know of each member: its DNS servers and one ready endpoint of a few services.
#[must_use]
pub fn targets_of(topology: &Topology) -> HashMap<String, Target> {
    let targets = topology.clusters.values().map(|cluster| {
        let want = match cluster.spec.reach {
            Reach::Auto => Want::Auto,
            Reach::Direct => Want::Direct,
            Reach::Relay => Want::Relay,
        };
        let dns = cluster.dns.iter().flat_map(|d| &d.servers).filter_map(|s| s.parse().ok()).take(SAMPLES).collect();
        let services = topology.endpoints.get(cluster.name.as_str()).into_iter().flatten();
        let pods: Vec<SocketAddr> = services
            .filter_map(|(_, e)| {
                let port = e.ports.iter().find(|p| p.protocol == "TCP" || p.protocol.is_empty())?.port;
                Some(SocketAddr::new(e.endpoints.iter().find(|e| e.ready)?.address, port))
            })
            .take(SAMPLES)
            .collect();
        (cluster.name.to_string(), Target { want, overlap: cluster.overlaps, groups: vec![dns, pods] })
    });
    targets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Route;
    use crate::stream::System;
    use atoll_api::facts::{Facts, key};
    use atoll_api::topology::Version;
    use serde_json::json;

    fn topology(reach: &str, dns: SocketAddr, pod: SocketAddr) -> Arc<Topology> {
        let mut facts = Facts::default();
        let spec = json!({"environment": "prod", "reach": reach});
        let cluster = json!({"name": "eu", "spec": spec, "dns": {"kind": "Kubernetes", "domain": "cluster.local", "servers": [dns]}});
        facts.put(format!("{}/eu", key::CLUSTER), &cluster);
        let endpoints = json!({"endpoints": [{"address": pod.ip(), "ready": true}],
            "ports": [{"name": "http", "protocol": "TCP", "port": pod.port()}]});
        facts.put(format!("{}/eu/shop/web", key::ENDPOINTS), &endpoints);
        Arc::new(Topology::from_facts(Version::default(), &facts))
    }

    #[tokio::test]
    async fn a_member_whose_dns_and_pods_answer_is_dialed_directly_unless_the_spec_says_relay() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        for (reach, route) in [("Auto", Route::Direct), ("Relay", Route::Relay)] {
            let (_sender, topologies) = watch::channel(topology(reach, at, at));
            let (routes, end) = (Routes::default(), CancellationToken::new());
            let probing =
                probe_members(Arc::new(System::default()), topologies, |t| Some(Arc::clone(t)), routes.clone(), end);
            let found = async {
                while routes.of("eu") != route {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                () = probing => unreachable!("nobody ended it"),
                () = found => {}
                () = tokio::time::sleep(Duration::from_secs(10)) => panic!("{reach}: {:?}", routes.of("eu")),
            }
        }
    }
}
