//! What data planes call: Follow (the topology as deltas) and Report (who they are, whom they reach). Node-local DNS servers of members
//! only follow, and hear what concerns their member.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::topology::Site;
use atoll_wire::delta::{Sender, Shared};
use atoll_wire::v1::{self, feed_event::Event, feed_server::Feed};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::{Follower, Views};
use crate::topology::{Published, Said, Sites};

/// So often a follower hears that the hub is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
const SLOW_MAX: Duration = Duration::from_secs(30);
/// A report longer than this is none.
const SITE_LEN_MAX: usize = 1 << 20;
const PROBES_MAX: usize = 10_000;
/// The site that is told the zones' keys.
const DNS: &str = "dns";

/// Feeds data planes.
pub(crate) struct FeedService {
    pub(crate) epoch: u64,
    /// `None` until the hub has settled.
    pub(crate) topology: watch::Receiver<Option<Published>>,
    pub(crate) sites: Arc<Sites>,
    /// What node-local DNS servers see, by member.
    pub(crate) views: Arc<Views>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl Feed for FeedService {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<v1::FeedEvent, Status>> + Send>>;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let follower = super::follower(&request)?;
        let (out, events) = mpsc::channel(16);
        let (epoch, topology, shutdown) = (self.epoch, self.topology.clone(), self.shutdown.clone());
        let views = Arc::clone(&self.views);
        self.tasks.spawn(async move {
            tracing::info!(?follower, "data plane follows");
            let ended = match &follower {
                Follower::Site(site) => {
                    let seen = |p: &Published| Some(if site == DNS { p.whole.clone() } else { p.without_keys.clone() });
                    shutdown.run_until_cancelled(feed(epoch, topology, &out, seen)).await
                }
                Follower::Names(member) => {
                    let seen = |p: &Published| views.of(p, member);
                    shutdown.run_until_cancelled(feed(epoch, topology, &out, seen)).await
                }
            };
            tracing::info!(?follower, "data plane follows no more");
            if ended.is_none() {
                let _ = out.try_send(Err(Status::unavailable("the hub stops")));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn report(&self, request: Request<v1::SiteReport>) -> Result<Response<v1::SiteAck>, Status> {
        let name = super::site(&request)?;
        let report = request.into_inner();
        let longest = report.probes.len().max(report.checks.len()).max(report.rtt_ms.len());
        if report.site_json.len() > SITE_LEN_MAX || longest > PROBES_MAX {
            return Err(Status::invalid_argument("site report: too long"));
        }
        let mut site: Site = serde_json::from_slice(&report.site_json)
            .map_err(|e| Status::invalid_argument(format!("site report: {e}")))?;
        site.instance = instance_of(&name, &site.instance).ok_or_else(|| {
            Status::invalid_argument(format!("site report: instance `{}` is not a name", site.instance))
        })?;
        // That is ours to say.
        site.silent = false;
        if site.kind != "dns" && site.kind != "gateway" {
            return Err(Status::invalid_argument(format!(
                "site report: kind `{}` is neither dns nor gateway",
                site.kind
            )));
        }
        let said = Said {
            probes: report.probes.into_iter().collect(),
            checks: report.checks.into_iter().collect(),
            rtt_ms: report.rtt_ms.into_iter().filter_map(|(name, ms)| Some((name.parse().ok()?, ms))).collect(),
        };
        self.sites.report(site, said, Instant::now());
        Ok(Response::new(v1::SiteAck {}))
    }
}

/// A site speaks only for instances under the name of its certificate.
fn instance_of(name: &str, instance: &str) -> Option<String> {
    let fits = instance.len() <= 200 && instance.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let own = instance == name || instance.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    match (fits, own) {
        (false, _) => None,
        (true, true) => Some(instance.to_owned()),
        (true, false) if instance.is_empty() => Some(name.to_owned()),
        (true, false) => Some(format!("{name}-{instance}")),
    }
}

/// Sends the topology as it is `seen` whenever it changes, and a word that all is well in between. Ends when nothing is to be seen.
async fn feed(
    epoch: u64,
    mut topology: watch::Receiver<Option<Published>>,
    out: &mpsc::Sender<Result<v1::FeedEvent, Status>>,
    seen: impl Fn(&Published) -> Option<Shared>,
) -> Option<()> {
    let mut sender = Sender::new(epoch);
    let send = async |event: Event| {
        let event = v1::FeedEvent { event: Some(event) };
        timeout(SLOW_MAX, out.send(Ok(event))).await.ok()?.ok()
    };
    topology.wait_for(Option::is_some).await.ok()?;
    loop {
        let now = topology.borrow_and_update().clone();
        if let Some(published) = now {
            let Some(shared) = seen(&published) else {
                let gone = Status::permission_denied("its Cluster object was deleted: no member any more");
                return timeout(SLOW_MAX, out.send(Err(gone))).await.ok()?.ok();
            };
            for delta in sender.follow(&shared).iter() {
                send(Event::Delta(delta.clone())).await?;
            }
        }
        let alive_at = Instant::now() + ALIVE_EVERY;
        tokio::select! {
            changed = topology.changed() => changed.ok()?,
            () = sleep_until(alive_at) => {
                let digest = sender.digest().to_vec().into();
                send(Event::Alive(v1::Acknowledged { epoch, digest })).await?;
            }
            () = out.closed() => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::instance_of;

    #[test]
    fn a_site_speaks_only_under_the_name_of_its_certificate() {
        for (name, instance, known_as) in [
            ("dns", "dns", Some("dns")),
            ("dns", "dns-1", Some("dns-1")),
            ("dns", "gateway-1", Some("dns-gateway-1")),
            ("dns", "dnsx", Some("dns-dnsx")),
            ("dns", "", Some("dns")),
            ("dns", "a/b", None),
            ("dns", "<script>", None),
        ] {
            assert_eq!(instance_of(name, instance).as_deref(), known_as, "{name} {instance}");
        }
    }
}
