//! Observation: what there is in the member, as facts.
//!
//! In: watches on nodes, pods, services, endpoint slices and exports, each trimmed to what is needed before it is kept. Out:
//! keyed facts (`member`, `service/…`, `endpoints/…`, `export/…`, `balancer/…`), at most every 100 ms. Only exported services are told, and
//! those of which gateways are the balancer; with endpoints the labels of their pods, as far as the hub asks for them.

mod labels;
mod member;
mod ranges;
mod services;
mod table;
mod trim;

use std::sync::Arc;
use std::time::Duration;

use atoll_api::facts::Facts;
use atoll_api::kinds::{MemberDns, ServiceExport};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use tokio::sync::{Notify, OnceCell, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::desired::Word;
use crate::enrol::cluster_uid;
pub(crate) use member::Slow;
pub(crate) use table::{Table, follow};
pub(crate) use trim::PodRow;
use trim::{ExportRow, NodeRow, ServiceRow, SliceRow};

/// Changes are gathered for this long.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// What has no watch is read again this often.
const SLOW: Duration = Duration::from_secs(30);

/// Everything that is watched.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) nodes: Table<NodeRow>,
    pub(crate) pods: Table<PodRow>,
    pub(crate) services: Table<ServiceRow>,
    pub(crate) slices: Table<SliceRow>,
    pub(crate) exports: Table<ExportRow>,
    /// Of kube-system, which tells clusters apart. It never changes.
    uid: OnceCell<String>,
}

impl Seen {
    /// The uid of kube-system, read where it is not known yet; nothing where it can't be.
    pub(crate) async fn uid(&self, client: &kube::Client) -> Option<&str> {
        let read = async || Some(cluster_uid(client).await).filter(|uid| !uid.is_empty()).ok_or(());
        self.uid.get_or_try_init(read).await.ok().map(String::as_str)
    }
}

/// Watches the member until `shutdown`; publishes facts, and the DNS found for those who ask it. `word`: which labels the hub asks for.
pub(crate) async fn run(
    client: kube::Client,
    config: Config,
    seen: Arc<Seen>,
    facts: watch::Sender<Arc<Facts>>,
    dns: watch::Sender<Option<MemberDns>>,
    word: watch::Receiver<Word>,
    shutdown: CancellationToken,
) {
    let changed = Arc::new(Notify::new());
    let mut watches = JoinSet::new();
    macro_rules! watch {
        ($kind:ty, $table:ident, $trim:expr) => {{
            let (seen, changed) = (Arc::clone(&seen), Arc::clone(&changed));
            let api: Api<$kind> = Api::all(client.clone());
            watches.spawn(async move { follow(api, "", &seen.$table, &changed, $trim).await });
        }};
    }
    watch!(Node, nodes, trim::node);
    watches.spawn(labels::follow_pods(client.clone(), Arc::clone(&seen), Arc::clone(&changed), word.clone()));
    watch!(Service, services, trim::service);
    watch!(EndpointSlice, slices, trim::slice);
    {
        // Metadata is all that counts, and `spec` may be absent (KEP-1645), which the typed kind does not know.
        let (seen, changed) = (Arc::clone(&seen), Arc::clone(&changed));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<ServiceExport>(&()));
        watches.spawn(async move { follow(api, "", &seen.exports, &changed, trim::export).await });
    }
    let tell = async {
        let mut slow = Slow::default();
        let mut read: Option<Instant> = None;
        loop {
            if slow.version.is_empty() || read.is_none_or(|at| at.elapsed() >= SLOW) {
                slow = read_slow(&client, slow).await;
                seen.uid(&client).await;
                read = Some(Instant::now());
            }
            let started = Instant::now();
            if is_known(&seen) {
                let uid = seen.uid.get().map(String::as_str);
                let holds_hub = word.borrow().desired.as_ref().is_some_and(|desired| desired.holds_hub(uid));
                let found = compute(&seen, &slow, &config, &labels::wanted(&word), holds_hub);
                dns.send_if_modified(|was| {
                    let changed = *was != found.1;
                    was.clone_from(&found.1);
                    changed
                });
                facts.send_if_modified(|was| {
                    let changed = was.digest() != found.0.digest();
                    *was = Arc::new(found.0);
                    changed
                });
            }
            // A big member is folded less often: at most a twentieth of the time goes into it.
            let pause = DEBOUNCE.max(started.elapsed() * 20);
            tokio::time::sleep(pause).await;
            let _ = tokio::time::timeout(SLOW, changed.notified()).await;
        }
    };
    tokio::select! {
        () = tell => {}
        () = shutdown.cancelled() => {}
    }
}

/// Half a picture must not be told: what is missing in it would look deleted. A member without ServiceExports has none.
fn is_known(seen: &Seen) -> bool {
    seen.nodes.is_synced()
        && seen.pods.is_synced()
        && seen.services.is_synced()
        && seen.slices.is_synced()
        && seen.exports.is_synced()
}

fn compute(
    seen: &Seen,
    slow: &Slow,
    config: &Config,
    wanted: &labels::Wanted,
    holds_hub: bool,
) -> (Facts, Option<MemberDns>) {
    let mut facts = Facts::default();
    let member = member::fold(seen, slow, config);
    let dns = member.dns.clone();
    facts.put(atoll_api::facts::key::MEMBER, &member);
    services::fold(seen, wanted, holds_hub, &mut facts);
    (facts, dns)
}

/// What changes seldom, and what not every API server has. Where a read fails the last answer stays.
async fn read_slow(client: &kube::Client, before: Slow) -> Slow {
    let mut slow = before;
    if let Ok(version) = client.apiserver_version().await {
        slow.version = version.git_version;
    }
    let cidrs: Api<ServiceCIDR> = Api::all(client.clone());
    if let Ok(found) = cidrs.list(&ListParams::default().limit(100)).await {
        slow.service_cidrs = found.items.into_iter().filter_map(|c| c.spec?.cidrs).flatten().collect();
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    if let Ok(Some(map)) = maps.get_opt("coredns").await {
        slow.corefile = map.data.and_then(|mut data| data.remove("Corefile")).unwrap_or_default();
    }
    slow
}
