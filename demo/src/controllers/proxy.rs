//! What kube-proxy is to a cluster: TCP connections to a Service's address go to one of its ready pods, each in turn.
//!
//! A port that can't be bound (below 1024 without the right to) is named once and left out: pods and names work without it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{kubelet::Ground, world::World};
use crate::{
    gate::Door,
    serve::{forward, serve},
};

/// Connections to one Service's port at once.
const CONNECTIONS_MAX: usize = 256;

type Pods = Vec<SocketAddr>;

/// The addresses that are served.
#[derive(Default)]
pub(super) struct Proxy {
    doors: BTreeMap<SocketAddr, Option<Served>>,
}

struct Served {
    pods: watch::Sender<Arc<Pods>>,
    end: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Proxy {
    /// Serves the addresses that Services with a selector have now, and no others.
    pub(super) fn reconcile(&mut self, world: &World, ground: &Ground) {
        let wanted = wanted(world);
        self.doors.retain(|address, _| wanted.contains_key(address));
        for (address, pods) in wanted {
            let pods = Arc::new(pods);
            match self.doors.get(&address) {
                Some(Some(served)) => {
                    served.pods.send_if_modified(|known| {
                        let changed = **known != *pods;
                        known.clone_from(&pods);
                        changed
                    });
                }
                Some(None) => {}
                None => {
                    self.doors.insert(address, open(address, pods, ground));
                }
            }
        }
    }
}

/// Service addresses and the ready pods behind each.
fn wanted(world: &World) -> BTreeMap<SocketAddr, Pods> {
    let mut wanted = BTreeMap::new();
    for service in world.services.all() {
        let Some(spec) = service.spec.as_ref().filter(|s| s.selector.as_ref().is_some_and(|l| !l.is_empty())) else {
            continue;
        };
        let Some(ip) = spec.cluster_ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok()) else { continue };
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        for port in spec.ports.iter().flatten().filter(|p| p.protocol.as_deref().is_none_or(|p| p == "TCP")) {
            let Ok(number) = u16::try_from(port.port) else { continue };
            let port_name = port.name.clone().unwrap_or_default();
            wanted.insert(SocketAddr::new(ip, number), ready(world, &namespace, &name, &port_name));
        }
    }
    wanted
}

fn ready(world: &World, namespace: &str, service: &str, port: &str) -> Pods {
    let of = world
        .slices
        .within(namespace)
        .filter(|s| s.labels().get("kubernetes.io/service-name").is_some_and(|l| l == service));
    let mut pods = Vec::new();
    for slice in of {
        let ports = slice.ports.iter().flatten();
        let number =
            ports.filter(|p| p.name.as_deref().unwrap_or_default() == port).find_map(|p| u16::try_from(p.port?).ok());
        let Some(number) = number else { continue };
        for endpoint in slice.endpoints.iter().filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)) {
            let ips = endpoint.addresses.iter().filter_map(|a| a.parse().ok());
            pods.extend(ips.map(|ip: IpAddr| SocketAddr::new(ip, number)));
        }
    }
    pods
}

fn open(address: SocketAddr, pods: Arc<Pods>, ground: &Ground) -> Option<Served> {
    let door = match Door::bind(address, &ground.gate) {
        Ok(door) => door,
        Err(why) => {
            tracing::debug!(%address, %why, "a Service's own address is not served");
            return None;
        }
    };
    let (sender, receiver) = watch::channel(pods);
    let end = ground.shutdown.child_token();
    ground.tasks.spawn(proxy(door, receiver, end.clone()));
    Some(Served { pods: sender, end })
}

async fn proxy(door: Door, pods: watch::Receiver<Arc<Pods>>, end: CancellationToken) {
    let turn = AtomicUsize::new(0);
    let one = |client, _| {
        let all = pods.borrow().clone();
        let pod = all.get(turn.fetch_add(1, Ordering::Relaxed) % all.len().max(1)).copied();
        let end = end.clone();
        async move {
            // without a pod the connection closes, as without an endpoint it would be refused
            if let Some(pod) = pod {
                forward(client, pod, end).await;
            }
        }
    };
    serve(door, CONNECTIONS_MAX, &end, one).await;
}
