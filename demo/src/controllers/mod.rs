//! The controllers of a demo member: what makes Deployments, pods and endpoints real.
//!
//! One loop, level-triggered: watches fill the [`world`], pure functions say what is to be done, [`action`] does it, and again until
//! nothing is left. Only the [`kubelet`] does things besides: it pulls images and binds ports. What services and endpoints there are
//! goes to the DNS as a new zone.

mod action;
mod condition;
mod deployments;
mod kubelet;
mod proxy;
mod replicas;
mod scheduler;
mod slices;
mod status;
mod world;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, Stream, StreamExt, stream};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::dns::Zone;
pub(crate) use kubelet::{Ground, Kubelet};
use proxy::Proxy;
use world::{Seen, World};

/// Looks at a stretch; a fixpoint that is none shows as a warning instead of a busy core.
const ROUNDS_MAX: usize = 50;
/// The pause after a write that failed: what was stale is fresh by then.
const RETRY: Duration = Duration::from_millis(200);

/// Runs the controllers until `shutdown`.
pub(crate) async fn run(
    client: Client,
    mut kubelet: Kubelet,
    zone: watch::Sender<Arc<Zone>>,
    domain: &str,
    shutdown: CancellationToken,
) {
    let (mut world, mut proxy) = (World::default(), Proxy::default());
    let mut counter = 0;
    let mut retry: Option<Instant> = None;
    let mut seen = watches(&client);
    loop {
        let wake = [retry, kubelet.next_try()].into_iter().flatten().min();
        let woken = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(event) = seen.next() => {
                world.observe(event);
                // a burst is looked at once
                while let Some(Some(event)) = seen.next().now_or_never() {
                    world.observe(event);
                }
            }
            pulled = kubelet.pulled() => kubelet.go_on(&world, pulled).await,
            () = woken => retry = None,
        }
        if world.is_whole() {
            let settled = settle(&client, &mut world, &mut kubelet, &mut counter).await;
            retry = (!settled).then(|| Instant::now() + RETRY);
            proxy.reconcile(&world, kubelet.ground());
            publish(&world, &kubelet, &zone, domain);
        }
    }
}

/// Does what is to be done until nothing is; false if something failed.
async fn settle(client: &Client, world: &mut World, kubelet: &mut Kubelet, counter: &mut u64) -> bool {
    for _ in 0..ROUNDS_MAX {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut actions = deployments::reconcile(world, &now);
        actions.extend(replicas::reconcile(world, counter));
        actions.extend(scheduler::reconcile(world, &now));
        actions.extend(kubelet.reconcile(world, &now).await);
        actions.extend(slices::reconcile(world));
        if actions.is_empty() {
            return true;
        }
        let mut failed = false;
        for action in actions {
            let what = format!("{action:?}");
            if let Err(error) = action.carry_out(client, world).await {
                tracing::debug!(%error, what, "a controller's write failed");
                failed = true;
            }
        }
        if failed {
            return false;
        }
    }
    tracing::warn!("the demo's controllers found no rest");
    false
}

fn publish(world: &World, kubelet: &Kubelet, zone: &watch::Sender<Arc<Zone>>, domain: &str) {
    let build = |serial| {
        let namespaces = world.namespaces.all().filter_map(|n| n.metadata.name.as_deref());
        Zone::new(domain, kubelet.ground().network, namespaces, world.services.all(), world.slices.all(), serial)
    };
    zone.send_if_modified(|known| {
        let changed = build(known.serial()) != **known;
        if changed {
            *known = Arc::new(build(known.serial().wrapping_add(1)));
        }
        changed
    });
}

/// All watches as one stream, which never ends.
fn watches(client: &Client) -> impl Stream<Item = Seen> + Unpin {
    fn one<K>(client: &Client, make: fn(watcher::Event<K>) -> Seen) -> stream::BoxStream<'static, Seen>
    where
        K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let events = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff();
        // an error is a watch that begins anew by itself
        events.filter_map(move |event| std::future::ready(event.ok().map(make))).boxed()
    }
    stream::select_all([
        one(client, Seen::Namespace),
        one(client, Seen::Node),
        one(client, Seen::Service),
        one(client, Seen::Deployment),
        one(client, Seen::ReplicaSet),
        one(client, Seen::Pod),
        one(client, Seen::Slice),
    ])
}

/// `n` letters and digits out of a hash, of those that make no words, as Kubernetes does.
fn letters(mut hash: u64, n: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut out = String::with_capacity(n);
    for _ in 0..n {
        out.push(char::from(LETTERS[(hash % LETTERS.len() as u64) as usize]));
        hash /= LETTERS.len() as u64;
    }
    out
}
