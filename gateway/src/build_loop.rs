//! Builds a table whenever something changed, swaps it in, opens ports, hands on statuses, keeps the last good objects.
//!
//! In: what changed of objects and topology, the moment. Never: waits for anybody while a change is there to be served. The first change
//! after a rest is served at once; many changes at once make one table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::topology::{BalancerState, ServedGateway, Topology};
use atoll_wire::follow::{Report, Snapshot as Followed};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::LastGood;
use crate::acme::{Asker, Ordered, Proving, Standing, Wanted};
use crate::balancer;
use crate::fleet::Fleet;
use crate::http3::Doors;
use crate::ingress::Derived;
use crate::last_good;
use crate::listen::OpenPorts;
use crate::names::Found;
use crate::objects::{Edit, Kind, Objects};
use crate::plane::Plane;
use crate::pods;
use crate::quota::Quota;
use crate::status::Statuses;
use crate::table::{Built, Certified, Input, Memory, Ports, rebuild};
use crate::watch::Watches;

/// Between two tables: changes within this time make one.
const GATHER: Duration = Duration::from_millis(2);
/// Ports that could not be opened are tried again so often.
const PORTS_AGAIN: Duration = Duration::from_secs(10);
/// So long the first table waits for the topology, without which every ServiceImport would be missing, and as long for policies, without
/// which nothing is served.
const FIRST_MAX: Duration = Duration::from_secs(5);
/// And names of backends, which lead nowhere before they were asked.
const NAMES_MAX: Duration = Duration::from_secs(2);
/// And labels of pods, without which endpoints are of no subset.
const PODS_MAX: Duration = Duration::from_secs(2);
/// The last good objects are written at most so often.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// And no more often than takes this share of the time, for writing costs what there is.
const SAVE_SHARE: u32 = 20;

/// What building needs.
pub(crate) struct Builder {
    pub(crate) plane: Arc<Plane>,
    /// For those who tell balancers that others own.
    pub(crate) seen: watch::Sender<Option<Objects>>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) topology: watch::Receiver<Followed>,
    /// This replica's name.
    pub(crate) instance: String,
    /// What the hub is told of this replica.
    pub(crate) report: watch::Sender<Report>,
    pub(crate) ports: Ports,
    pub(crate) open: OpenPorts,
    /// Those of HTTP/3.
    pub(crate) doors: Doors,
    /// Where this replica is reached.
    pub(crate) addresses: Vec<String>,
    /// From which Gateways get addresses of their own.
    pub(crate) pool: Vec<IpNet>,
    /// Whether each gets a Service of type LoadBalancer, and where these find this replica.
    pub(crate) service: bool,
    pub(crate) own: Vec<IpAddr>,
    pub(crate) node: Option<String>,
    pub(crate) fleet: Fleet,
    pub(crate) quota: Quota,
    pub(crate) memory: Memory,
    pub(crate) statuses: watch::Sender<Statuses>,
    /// Certificates that are to be ordered, and how their hosts are proven. Where none are, nobody is told.
    pub(crate) ordered: Option<(Proving, watch::Sender<Ordered>)>,
    /// What became of them, and as it was judged last.
    pub(crate) certificates: watch::Receiver<Standing>,
    pub(crate) standing: Standing,
    /// What names of backends lead to.
    pub(crate) names: watch::Receiver<Arc<Found>>,
    /// What labels pods have.
    pub(crate) pods: watch::Receiver<pods::Known>,
    pub(crate) kept: Option<Arc<LastGood>>,
    pub(crate) has_last_good: bool,
    /// The objects as they were looked at last.
    pub(crate) objects: Objects,
    /// The hash of what is on disk, once something was written in this life.
    pub(crate) saved: Option<[u8; 32]>,
    /// What of Ingresses stands in the metrics.
    pub(crate) counted: Arc<Derived>,
}

impl Builder {
    /// Builds until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let _ = shutdown.run_until_cancelled(self.go()).await;
        // What changed since the last save is not lost by a restart.
        if self.watches.are_listed() {
            let topology = Arc::clone(&self.topology.borrow().topology);
            self.save(&topology).await;
        }
        self.open.finish().await;
    }

    async fn go(&mut self) {
        let mut changes = self.watches.changes();
        let mut save_at = Instant::now();
        let mut unsaved = false;
        let _ = tokio::time::timeout(FIRST_MAX, self.topology.wait_for(Followed::is_known)).await;
        let _ = tokio::time::timeout(FIRST_MAX, self.watches.until_known()).await;
        let mut built = None;
        loop {
            changes.borrow_and_update();
            let topology = Arc::clone(&self.topology.borrow_and_update().topology);
            let listed = self.watches.are_listed();
            if listed || self.has_last_good {
                let mut edits = self.watches.update(&mut self.objects, built != Some(listed));
                edits.extend(self.certificates());
                edits.extend(self.named());
                edits.extend(self.labelled(&topology).await);
                edits.extend(balancer::derive(&mut self.objects, &topology, &self.fleet, &edits));
                edits.extend(self.quota.derive(&mut self.objects, &edits));
                if listed && self.seen.receiver_count() > 0 {
                    self.seen.send_replace(Some(self.objects.clone()));
                }
                self.watches.until_guarded().await;
                self.build(&edits, &topology, listed).await;
                built = Some(listed);
                unsaved = listed && self.kept.is_some();
            }
            let rest = Instant::now() + GATHER;
            let ports_at = Instant::now() + PORTS_AGAIN;
            // Saves what there is, then waits until something that tables are made of is another.
            loop {
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return } else { break },
                    Ok(()) = self.certificates.changed() => break,
                    Ok(()) = self.names.changed() => break,
                    Ok(()) = self.pods.changed() => break,
                    changed = self.topology.changed() => {
                        if changed.is_err() { return }
                        if !Arc::ptr_eq(&self.topology.borrow_and_update().topology, &topology) { break }
                    }
                    () = tokio::time::sleep_until(ports_at), if !self.ports.failed.is_empty() || !self.doors.lacking().is_empty() => break,
                    () = tokio::time::sleep_until(save_at), if unsaved => {
                        let began = Instant::now();
                        unsaved = !self.save(&topology).await;
                        save_at = Instant::now() + SAVE_EVERY.max(began.elapsed() * SAVE_SHARE);
                    }
                }
            }
            tokio::time::sleep_until(rest).await;
        }
    }

    /// Builds, swaps, and settles the ports; once more if that changed which ports can be served.
    async fn build(&mut self, edits: &[Edit], topology: &Arc<Topology>, listed: bool) {
        let addresses = self.addresses(topology);
        let mut edits = edits.to_vec();
        let mut is_first = self.plane.snapshots.load().is_none();
        loop {
            let (ports, pool, now) = (&self.ports, &self.pool, jiff::Timestamp::now());
            let (instance, objects) = (&self.instance, &self.objects);
            let (service, own, node, fleet) = (self.service, &self.own, self.node.as_deref(), &self.fleet);
            let addresses = &addresses;
            let (certificates, orders) = (&self.standing, self.ordered.as_ref().map(|(by, _)| *by));
            let input = Input {
                objects,
                topology,
                instance,
                ports,
                addresses,
                pool,
                service,
                own,
                node,
                fleet,
                certificates,
                orders,
                now,
            };
            let Built { table, statuses, served, balanced, wanted, certified, ordered, names } =
                rebuild(&input, &mut self.memory, &edits);
            self.plane.names.want(&names);
            if std::mem::take(&mut is_first) && !names.is_empty() {
                self.plane.names.until_asked(&names, NAMES_MAX).await;
                self.named();
                edits = vec![Edit::Whole];
                continue;
            }
            self.plane.metrics.builds.inc();
            self.plane.metrics.routes.set(i64::try_from(objects.routes_len()).unwrap_or(i64::MAX));
            self.count_certificates(&certified);
            self.count_refused();
            self.count_over();
            self.plane.swap(table, !listed);
            self.doors.give_way(&wanted).await;
            let failed = self.open.settle(&wanted).await;
            if let Some(snapshot) = self.plane.snapshots.load_full() {
                self.doors.settle(&snapshot.table, &wanted).await;
            }
            if failed == self.ports.failed && *self.doors.lacking() == self.ports.unanswered {
                self.state(served, balanced);
                if listed {
                    self.order(ordered);
                    self.statuses.send_replace(statuses);
                }
                return;
            }
            self.ports.failed = failed;
            self.ports.unanswered.clone_from(self.doors.lacking());
            edits = vec![Edit::Whole];
        }
    }

    /// What is to be said otherwise because of certificates that were ordered.
    fn certificates(&mut self) -> Vec<Edit> {
        let standing = self.certificates.borrow_and_update().clone();
        let differ = standing.differs(&self.standing);
        self.standing = standing;
        let said = differ.into_iter().filter_map(|(kind, name)| match kind {
            Asker::Gateway => self.objects.gateways.at(&name).is_some().then_some(Edit::Said(Kind::Gateway, name)),
            Asker::Set => self.objects.sets.at(&name).is_some().then_some(Edit::Said(Kind::Set, name)),
            Asker::Ingress => None,
        });
        said.collect()
    }

    /// What is to be looked up again because names lead elsewhere.
    fn named(&mut self) -> Vec<Edit> {
        let found = Arc::clone(&self.names.borrow_and_update());
        self.objects.lead(found)
    }

    /// What is to be looked up again because pods have other labels. The first table waits for them, where any count.
    async fn labelled(&mut self, topology: &Topology) -> Vec<Edit> {
        let wanted = pods::wanted(&self.objects, topology);
        let (are_some, is_first) = (!wanted.is_empty(), self.plane.snapshots.load().is_none());
        self.plane.pods.want(wanted);
        if are_some && is_first {
            self.plane.pods.until_listed(PODS_MAX).await;
        }
        let labelled = self.pods.borrow_and_update().labelled.clone();
        self.objects.label(labelled)
    }

    /// Says which certificates are to be ordered.
    fn order(&self, wanted: Vec<Wanted>) {
        let Some((_, ordered)) = &self.ordered else { return };
        ordered.send_if_modified(|known| {
            let is_other = known.as_deref() != Some(&wanted);
            if is_other {
                *known = Some(Arc::new(wanted));
            }
            is_other
        });
    }

    /// States what is served from now on.
    fn state(&self, served: BTreeMap<String, ServedGateway>, balanced: BTreeMap<String, BalancerState>) {
        self.report.send_if_modified(|report| {
            let is_other = report.site.gateways.as_ref() != Some(&served) || report.site.balancers != balanced;
            if is_other {
                (report.site.gateways, report.site.balancers) = (Some(served), balanced);
            }
            is_other
        });
    }

    fn count_certificates(&self, certified: &Certified) {
        let ends = &self.plane.metrics.certificates_not_after;
        if certified.all {
            ends.reset();
        }
        for (listener, end) in &certified.listeners {
            match end {
                Some(end) => ends.with_label_values(&[&**listener]).set(*end),
                // One that was never counted is not there to be removed.
                None => drop(ends.remove_label_values(&[&**listener])),
            }
        }
    }

    fn count_refused(&mut self) {
        if Arc::ptr_eq(&self.counted, &self.objects.derived) {
            return;
        }
        let before = std::mem::replace(&mut self.counted, Arc::clone(&self.objects.derived));
        let gauge = &self.plane.metrics.ingress_refused;
        // Filters that can't be made are counted there, too.
        for (annotation, closes) in before.refused().into_keys() {
            let _ = gauge.remove_label_values(&[annotation, if closes { "true" } else { "false" }]);
        }
        for ((annotation, closes), count) in self.counted.refused() {
            gauge.with_label_values(&[annotation, if closes { "true" } else { "false" }]).set(count);
        }
    }

    fn count_over(&self) {
        let (over, gauge) = (&self.objects.over, &self.plane.metrics.over_limit);
        let set = |what, count| gauge.with_label_values(&[what]).set(i64::try_from(count).unwrap_or(i64::MAX));
        set("routes", over.routes.len());
        set("certificates", over.certificates.len());
    }

    /// Where Gateways are served: here, and at all other replicas of the fleet, so that each writes the same status.
    fn addresses(&self, topology: &Topology) -> Vec<String> {
        let others = topology.sites.values().filter(|site| self.fleet.has(site)).flat_map(|site| &site.addresses);
        let all: BTreeSet<&String> = self.addresses.iter().chain(others).collect();
        all.into_iter().cloned().collect()
    }

    /// Writes the objects that are used, where they differ from what is on disk. Returns whether that went well.
    async fn save(&mut self, topology: &Topology) -> bool {
        let Some(kept) = self.kept.clone() else { return true };
        let (objects, hub) = (self.objects.clone(), topology.settings.hub_id.clone());
        // What is there may be much: it is gathered beside everything else.
        let encode = move || {
            let body = last_good::encode(&objects.used());
            let digest = Sha256::new().chain_update(hub.len().to_be_bytes()).chain_update(&hub).chain_update(&body);
            (digest.finalize().into(), hub, body)
        };
        let Ok((digest, hub, body)) = tokio::task::spawn_blocking(encode).await else { return false };
        if self.saved == Some(digest) {
            return true;
        }
        let written = last_good::save(kept, hub, body).await;
        if written {
            self.saved = Some(digest);
        }
        written
    }
}
