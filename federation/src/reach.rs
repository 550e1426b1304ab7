//! Probes what the hub can reach directly, from the topology.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::Reach;
use atoll_api::topology::Topology;
use atoll_reach::{Connect, Prober, Routes, Target, Want};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::topology::Published;

const EVERY: Duration = Duration::from_secs(10);
/// Endpoints tried per member.
const SAMPLES: usize = 4;

/// Keeps `routes` current until `shutdown`.
pub(crate) async fn probe(
    connect: Arc<dyn Connect>,
    mut topology: watch::Receiver<Option<Published>>,
    routes: Routes,
    shutdown: CancellationToken,
) {
    let (sender, targets) = watch::channel(Arc::new(HashMap::new()));
    let follow = async {
        loop {
            let found = topology.borrow_and_update().as_ref().map(|p| targets_of(&p.topology));
            if let Some(found) = found {
                sender.send_if_modified(|held| {
                    let changed = **held != found;
                    if changed {
                        *held = Arc::new(found);
                    }
                    changed
                });
            }
            if topology.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = Prober::new(connect, targets, routes, EVERY).run(shutdown.clone()) => {}
        () = follow => {}
        () = shutdown.cancelled() => {}
    }
}

fn targets_of(topology: &Topology) -> HashMap<String, Target> {
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
