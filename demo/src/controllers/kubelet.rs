//! The kubelet of all nodes of a member: pulls a pod's images, binds its ports on an address of its own, and says how it is.
//!
//! A pod is Ready only once all of its images were read and verified and all of its ports answer. What fails is tried again, later
//! and later; the status says why in a kubelet's words. A pod that is deleted answers a moment longer, as a container does that
//! is asked to end, so that whoever heard of it late still gets its answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    action::Action,
    deployments::same,
    slices,
    status::{self, Waiting},
    world::{World, is_active},
};
use crate::{
    echo::{Identity, Ports},
    gate::Gate,
    image::Puller,
    network::Network,
};

/// How long a deleted pod still answers.
const GRACE: Duration = Duration::from_secs(2);
/// The pause after a first failure; it doubles up to the next.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Addresses tried for one pod, where another program has its ports on some.
const ADDRESSES_MAX: usize = 64;

/// A pod's uid.
type Uid = String;

/// A pod's images by digest, or why one of them is not there.
type Images = Result<Vec<String>, Waiting>;

/// What became of a pod's images.
pub(super) struct Pulled(Option<(Uid, Images)>);

/// Every port of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    tcp: BTreeSet<u16>,
    udp: BTreeSet<u16>,
}

enum Stage {
    /// Images are being read.
    Pulling { tries: u32, before: Option<Waiting> },
    /// Something failed; again at `again`.
    Waiting { tries: u32, why: Waiting, again: Instant },
    /// It answers.
    Running { ip: Ipv4Addr, end: CancellationToken, bound: Wanted, images: Vec<String>, since: String },
}

/// What the pods of a member stand on.
pub(crate) struct Ground {
    /// The member's name.
    pub(crate) cluster: String,
    /// Where its pods live.
    pub(crate) network: Network,
    /// Node names in the order of their numbers.
    pub(crate) nodes: Vec<String>,
    /// Where images come from.
    pub(crate) puller: Puller,
    /// What everything that listens stands behind.
    pub(crate) gate: Gate,
    /// Who owns the tasks.
    pub(crate) tasks: TaskTracker,
    /// What ends them.
    pub(crate) shutdown: CancellationToken,
}

/// All pods of a member, as they run in this process.
pub(crate) struct Kubelet {
    ground: Ground,
    pods: BTreeMap<Uid, Stage>,
    pulls: JoinSet<(Uid, Images)>,
    /// Where the search for a free address goes on, by node.
    cursors: BTreeMap<u8, u8>,
}

impl Kubelet {
    /// A kubelet without pods.
    pub(crate) fn new(ground: Ground) -> Self {
        Self { ground, pods: BTreeMap::new(), pulls: JoinSet::new(), cursors: BTreeMap::new() }
    }

    /// What the pods stand on.
    pub(super) fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Waits until some pod's images were pulled, or could not be. Cancel safe.
    pub(super) async fn pulled(&mut self) -> Pulled {
        match self.pulls.join_next().await {
            // an aborted pull is that of a pod that is gone
            Some(done) => Pulled(done.ok()),
            None => std::future::pending().await,
        }
    }

    /// Goes on with a pod whose images were pulled, or could not be.
    pub(super) async fn go_on(&mut self, world: &World, pulled: Pulled) {
        let Some((uid, result)) = pulled.0 else { return };
        let Some(Stage::Pulling { tries, .. }) = self.pods.get(&uid) else { return };
        let tries = tries + 1;
        let stage = match result {
            Ok(images) => self.start(world, &uid, images, tries).await,
            Err(why) => failed(tries, why),
        };
        self.pods.insert(uid, stage);
    }

    /// When something is to be tried again.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.pods.values().filter_map(|s| if let Stage::Waiting { again, .. } = s { Some(*again) } else { None }).min()
    }

    /// Begins, tries again and ends what the world asks for, and says in statuses how the pods are.
    pub(super) async fn reconcile(&mut self, world: &World, now: &str) -> Vec<Action> {
        let here = |p: &&Pod| {
            let node = p.spec.as_ref().and_then(|s| s.node_name.as_ref());
            is_active(p) && node.is_some_and(|n| self.ground.nodes.contains(n))
        };
        let pods: Vec<&Pod> = world.pods.all().filter(here).collect();
        let uids: BTreeSet<Uid> = pods.iter().filter_map(|p| p.uid()).collect();
        let gone: Vec<Uid> = self.pods.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        for uid in gone {
            if let Some(Stage::Running { end, .. }) = self.pods.remove(&uid) {
                self.ground.tasks.spawn(async move {
                    end.run_until_cancelled(tokio::time::sleep(GRACE)).await;
                    end.cancel();
                });
            }
        }
        let mut actions = Vec::new();
        for pod in pods {
            self.advance(world, pod, now).await;
            actions.extend(self.say(pod, now));
        }
        actions
    }

    async fn advance(&mut self, world: &World, pod: &Pod, now: &str) {
        let Some(uid) = pod.uid() else { return };
        match self.pods.get_mut(&uid) {
            None => self.pull(pod, uid, 0, None),
            Some(Stage::Waiting { tries, why, again }) if *again <= Instant::now() => {
                let (tries, why) = (*tries, why.clone());
                self.pull(pod, uid, tries, Some(why));
            }
            Some(Stage::Running { ip, end, bound, since, .. }) => {
                if since.is_empty() {
                    now.clone_into(since);
                }
                // a Service made later may name a port that the containers don't
                let wanted = wanted(world, pod);
                let new = Wanted { tcp: &wanted.tcp - &bound.tcp, udp: &wanted.udp - &bound.udp };
                if new != Wanted::default() {
                    *bound = wanted;
                    let (ip, end) = (*ip, end.clone());
                    let identity = identity(&self.ground.cluster, pod);
                    match bind(ip, &new, &self.ground.gate).await {
                        Ok(ports) => ports.serve(&identity, &end, &self.ground.tasks),
                        Err(why) => tracing::warn!(pod = %pod.name_any(), %why, "a Service's port can't be served"),
                    }
                }
            }
            Some(_) => {}
        }
    }

    fn pull(&mut self, pod: &Pod, uid: Uid, tries: u32, before: Option<Waiting>) {
        let spec = pod.spec.iter();
        let all = spec.flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
        let images: Vec<String> = all.map(|c| c.image.clone().unwrap_or_default()).collect();
        let puller = self.ground.puller.clone();
        self.pods.insert(uid.clone(), Stage::Pulling { tries, before });
        self.pulls.spawn(async move {
            let mut ids = Vec::new();
            for image in images {
                match puller.pull(&image).await {
                    Ok(digest) => ids.push(format!("{image}@{digest}")),
                    Err(why) => return (uid, Err(Waiting::image(&image, &why, tries))),
                }
            }
            (uid, Ok(ids))
        });
    }

    /// Binds a pod's ports on the next free address of its node.
    async fn start(&mut self, world: &World, uid: &str, images: Vec<String>, tries: u32) -> Stage {
        let Some(pod) = world.pods.all().find(|p| p.uid().as_deref() == Some(uid)) else {
            return failed(tries, Waiting::new("ContainerCreating", String::new()));
        };
        let wanted = wanted(world, pod);
        let name = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        let node =
            u8::try_from(self.ground.nodes.iter().position(|n| *n == name).unwrap_or_default()).unwrap_or_default();
        let mut last = String::new();
        for _ in 0..ADDRESSES_MAX {
            let ip = self.next_address(node);
            match bind(ip, &wanted, &self.ground.gate).await {
                Ok(ports) => {
                    let end = self.ground.shutdown.child_token();
                    ports.serve(&identity(&self.ground.cluster, pod), &end, &self.ground.tasks);
                    return Stage::Running { ip, end, bound: wanted, images, since: String::new() };
                }
                Err(why) if why.kind() == std::io::ErrorKind::AddrInUse => last = why.to_string(),
                Err(why) => return failed(tries, Waiting::new("RunContainerError", why.to_string())),
            }
        }
        failed(tries, Waiting::new("RunContainerError", last))
    }

    fn next_address(&mut self, node: u8) -> Ipv4Addr {
        // .1 is the node's own
        let cursor = self.cursors.entry(node).or_insert(1);
        let used: BTreeSet<_> = self
            .pods
            .values()
            .filter_map(|s| if let Stage::Running { ip, .. } = s { Some(*ip) } else { None })
            .collect();
        for _ in 0..254u8 {
            *cursor = if *cursor >= 254 { 2 } else { *cursor + 1 };
            if !used.contains(&self.ground.network.pod(node, *cursor)) {
                break;
            }
        }
        self.ground.network.pod(node, *cursor)
    }

    fn say(&self, pod: &Pod, now: &str) -> Option<Action> {
        let (uid, old) = (pod.uid()?, pod.status.as_ref().map(|s| serde_json::json!(s)).unwrap_or_default());
        let status = match self.pods.get(&uid)? {
            Stage::Pulling { before, .. } => {
                let starting = Waiting::new("ContainerCreating", String::new());
                status::waiting(pod, &old, before.as_ref().unwrap_or(&starting), now)
            }
            Stage::Waiting { why, .. } => status::waiting(pod, &old, why, now),
            Stage::Running { ip, images, since, .. } => status::running(pod, &old, *ip, images, since, now),
        };
        (!same(&old, &status)).then(|| Action::status(pod, &status))
    }
}

fn failed(tries: u32, why: Waiting) -> Stage {
    let pause = PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(8)).min(PAUSE_MAX);
    Stage::Waiting { tries, why, again: Instant::now() + pause }
}

async fn bind(ip: Ipv4Addr, wanted: &Wanted, gate: &Gate) -> std::io::Result<Ports> {
    let list = |ports: &BTreeSet<u16>| ports.iter().copied().collect::<Vec<_>>();
    Ports::bind(IpAddr::V4(ip), &list(&wanted.tcp), &list(&wanted.udp), gate).await
}

/// The ports that the containers name, and those that Services send to this pod.
fn wanted(world: &World, pod: &Pod) -> Wanted {
    let mut wanted = Wanted::default();
    let mut add = |number: i32, protocol: Option<&str>| {
        let Ok(number) = u16::try_from(number) else { return };
        match protocol {
            None | Some("TCP") => wanted.tcp.insert(number),
            Some("UDP") => wanted.udp.insert(number),
            Some(_) => false,
        };
    };
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    for port in containers.flat_map(|c| c.ports.iter().flatten()) {
        add(port.container_port, port.protocol.as_deref());
    }
    let namespace = pod.namespace().unwrap_or_default();
    for service in world.services.within(&namespace).filter(|s| slices::picks(s, pod)) {
        for port in service.spec.iter().flat_map(|s| s.ports.iter().flatten()) {
            if let Some(number) = slices::target(port, pod) {
                add(number, port.protocol.as_deref());
            }
        }
    }
    wanted
}

fn identity(cluster: &str, pod: &Pod) -> Arc<Identity> {
    let env = pod.spec.iter().flat_map(|s| &s.containers).flat_map(|c| c.env.iter().flatten());
    let version = env.into_iter().find(|e| e.name == "VERSION").and_then(|e| e.value.clone()).unwrap_or_default();
    let (pod_name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    Arc::new(Identity { cluster: cluster.to_owned(), pod: pod_name, namespace, version })
}
