//! What the console shows: plain data, gathered from memory at each look. Serialised as it is for `/api/v1/state`.

use std::collections::BTreeMap;

use atoll_api::kinds::{Bundle, CLUSTER_SET_LABEL, Condition, ReplicationRequest, RequestState, ServiceImport};
use atoll_api::topology::Site;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;
use tokio::time::Instant;

use super::Console;
use crate::membership::{Judged, verdicts};
use crate::resources::Answer;

/// Requests that are decided and done are shown up to this many, the newest first.
const DONE_MAX: usize = 10;

/// Everything on the page.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    pub(super) at: String,
    pub(super) hub: HubState,
    pub(super) clusters: Vec<ClusterState>,
    pub(super) bundles: Vec<BundleState>,
    pub(super) requests: Vec<RequestLine>,
    pub(super) services: Vec<ServiceState>,
    pub(super) sites: Vec<SiteState>,
    pub(super) ports: Vec<Port>,
    /// What DNS and gateway answer now; `None`: they took too long.
    pub(super) answers: Option<Vec<Answer>>,
}

/// The hub itself.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HubState {
    pub(super) id: String,
    pub(super) version: &'static str,
    pub(super) advertise: String,
    pub(super) apex: String,
    pub(super) default_set: String,
    pub(super) epoch: u64,
    /// Generation of the topology; `None` while the hub waits for its members after a start.
    pub(super) generation: Option<u64>,
}

/// One member.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterState {
    pub(super) name: String,
    pub(super) environment: String,
    pub(super) set: String,
    pub(super) role: String,
    pub(super) region: String,
    pub(super) zone: String,
    pub(super) provider: String,
    pub(super) sync: String,
    pub(super) reach: String,
    pub(super) version: String,
    pub(super) nodes: Option<i64>,
    pub(super) certificate_until: String,
    pub(super) conditions: Vec<ConditionState>,
    pub(super) room: Vec<Room>,
}

/// One condition.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConditionState {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) since: String,
}

/// Free and whole of one resource.
#[derive(Debug, Serialize)]
pub(super) struct Room {
    pub(super) resource: &'static str,
    pub(super) free: String,
    pub(super) capacity: String,
}

/// One Bundle.
#[derive(Debug, Serialize)]
pub(super) struct BundleState {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) conditions: Vec<ConditionState>,
    pub(super) clusters: Vec<atoll_api::kinds::BundleCluster>,
}

/// One image request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestLine {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) state: RequestState,
    pub(super) message: String,
    pub(super) requester: String,
    pub(super) images: Vec<String>,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) since: String,
    pub(super) votes: Vec<String>,
    /// What approves it, while it waits for that.
    pub(super) approve: Option<String>,
}

/// One service of a cluster set.
#[derive(Debug, Serialize)]
pub(super) struct ServiceState {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) set: String,
    pub(super) clusters: Vec<String>,
    pub(super) ports: Vec<String>,
}

/// One DNS server or gateway.
#[derive(Debug, Serialize)]
pub(super) struct SiteState {
    pub(super) instance: String,
    pub(super) kind: String,
    pub(super) addresses: Vec<String>,
    pub(super) region: String,
    pub(super) cluster: String,
}

/// Where something is to be found.
#[derive(Debug, Serialize)]
pub(super) struct Port {
    pub(super) what: String,
    pub(super) address: String,
}

impl State {
    /// Looks at everything.
    pub(super) fn gather(console: &Console, answers: Option<Vec<Answer>>, now: Timestamp) -> Self {
        let objects = &console.membership.objects;
        let published = console.hub.topology.borrow().clone();
        let clusters = verdicts(&console.membership, Instant::now()).into_values().map(|j| cluster(&j)).collect();
        let mut bundles: Vec<BundleState> = objects.bundles.state().iter().map(|b| bundle(b)).collect();
        bundles.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let mut services: Vec<ServiceState> = objects.imports.state().iter().map(|i| service(i)).collect();
        services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let policies: BTreeMap<(String, String), (String, String)> = objects
            .replication_policies
            .state()
            .iter()
            .map(|p| {
                let key = (p.namespace().unwrap_or_default(), p.name_any());
                (key, (p.spec.from.clone(), p.spec.to.clone()))
            })
            .collect();
        let sites = published.iter().flat_map(|p| p.topology.sites.values()).filter(|s| s.kind != "hub");
        Self {
            at: now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
            hub: HubState {
                id: console.hub.hub_id.clone(),
                version: env!("CARGO_PKG_VERSION"),
                advertise: console.config.advertise.clone(),
                apex: console.config.apex.clone(),
                default_set: console.config.default_set.clone(),
                epoch: console.hub.epoch,
                generation: published.as_ref().map(|p| p.version.generation),
            },
            clusters,
            bundles,
            requests: requests(objects.requests.state().iter().map(|r| request(r, &policies)).collect()),
            services,
            sites: sites.map(|s| site(s)).collect(),
            ports: console.view.ports().into_iter().map(|(what, address)| Port { what, address }).collect(),
            answers,
        }
    }
}

fn cluster(judged: &Judged) -> ClusterState {
    let object = &*judged.cluster;
    let (spec, status) = (&object.spec, object.status.clone().unwrap_or_default());
    // As reported a moment ago, else as written: the status follows within seconds.
    let (free, capacity) = match judged.member.capacity.is_empty() {
        false => (&judged.member.free, &judged.member.capacity),
        true => (&status.free, &status.capacity),
    };
    let rooms = [("cpu", "CPU"), ("memory", "memory"), ("pods", "pods")];
    let room = rooms.into_iter().filter_map(|(key, resource)| {
        Some(Room { resource, free: free.get(key)?.clone(), capacity: capacity.get(key)?.clone() })
    });
    ClusterState {
        name: object.name_any(),
        environment: spec.environment.clone(),
        set: spec.set().to_owned(),
        role: format!("{:?}", spec.role()),
        region: spec.region.clone().unwrap_or_default(),
        zone: spec.zone.clone().unwrap_or_default(),
        provider: spec.provider.clone().unwrap_or_default(),
        sync: format!("{:?}", spec.sync.mode),
        reach: status.reach.clone().unwrap_or_default(),
        version: status.version.clone().unwrap_or_default(),
        nodes: status.nodes,
        certificate_until: status.certificate.as_ref().map(|c| c.not_after.clone()).unwrap_or_default(),
        conditions: conditions(&status.conditions),
        room: room.collect(),
    }
}

fn conditions(all: &[Condition]) -> Vec<ConditionState> {
    let state = |c: &Condition| ConditionState {
        kind: c.type_.clone(),
        status: c.status.clone(),
        reason: c.reason.clone(),
        message: c.message.clone(),
        since: c.last_transition_time.0.to_string(),
    };
    all.iter().map(state).collect()
}

fn bundle(object: &Bundle) -> BundleState {
    let status = object.status.clone().unwrap_or_default();
    BundleState {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        conditions: conditions(&status.conditions),
        clusters: status.clusters,
    }
}

fn request(object: &ReplicationRequest, policies: &BTreeMap<(String, String), (String, String)>) -> RequestLine {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let status = object.status.clone().unwrap_or_default();
    let (from, to) = policies.get(&(namespace.clone(), object.spec.policy.clone())).cloned().unwrap_or_default();
    let waits = status.state == RequestState::PendingApproval;
    RequestLine {
        approve: waits.then(|| format!("atoll image approve {name} -n {namespace}")),
        state: status.state,
        message: status.message.unwrap_or_default(),
        requester: status.requester.unwrap_or_default(),
        images: object.spec.images.clone(),
        since: object.creation_timestamp().map(|t| t.0.to_string()).unwrap_or_default(),
        votes: status
            .votes
            .iter()
            .map(|v| format!("{} by {}{}", v.decision, v.voter, if v.counts { "" } else { " (does not count)" }))
            .collect(),
        namespace,
        name,
        from,
        to,
    }
}

/// Those that wait first, then those under way, then some that are done, the newest first.
fn requests(mut all: Vec<RequestLine>) -> Vec<RequestLine> {
    let rank = |r: &RequestLine| (r.approve.is_none(), r.state.is_final());
    all.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| b.since.cmp(&a.since)).then_with(|| a.name.cmp(&b.name)));
    let open = all.iter().filter(|r| !r.state.is_final()).count();
    all.truncate(open + DONE_MAX);
    all
}

fn service(object: &ServiceImport) -> ServiceState {
    let ports = object.spec.ports.iter();
    let status = object.status.clone().unwrap_or_default();
    ServiceState {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        set: object.labels().get(CLUSTER_SET_LABEL).cloned().unwrap_or_default(),
        clusters: status.clusters.into_iter().map(|c| c.cluster).collect(),
        ports: ports
            .map(|p| {
                let name = p.name.as_deref().map(|n| format!("{n} ")).unwrap_or_default();
                format!("{name}{}/{}", p.port, p.protocol.as_deref().unwrap_or("TCP"))
            })
            .collect(),
    }
}

fn site(site: &Site) -> SiteState {
    SiteState {
        instance: site.instance.clone(),
        kind: site.kind.clone(),
        addresses: site.addresses.clone(),
        region: site.region.clone().unwrap_or_default(),
        cluster: site.cluster.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_person_comes_first_and_says_what_to_type() {
        let line = |name: &str, state: RequestState, since: &str| {
            let mut object = ReplicationRequest::new(name, Default::default());
            object.metadata.namespace = Some("shop".into());
            object.status = Some(atoll_api::kinds::ReplicationRequestStatus { state, ..Default::default() });
            RequestLine { since: since.into(), ..request(&object, &BTreeMap::new()) }
        };
        let mut all: Vec<RequestLine> =
            (0..20).map(|i| line(&format!("done-{i}"), RequestState::Succeeded, &format!("2026-01-{i:02}"))).collect();
        all.push(line("busy", RequestState::Copying, "2025"));
        all.push(line("waits", RequestState::PendingApproval, "2024"));
        let shown = requests(all);
        assert_eq!(shown.iter().take(3).map(|r| r.name.as_str()).collect::<Vec<_>>(), ["waits", "busy", "done-19"]);
        assert_eq!(shown.len(), 2 + DONE_MAX);
        assert_eq!(shown[0].approve.as_deref(), Some("atoll image approve waits -n shop"));
        assert!(shown[1..].iter().all(|r| r.approve.is_none()));
    }
}
