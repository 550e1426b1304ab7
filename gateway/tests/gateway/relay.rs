//! A member that is reached by its agent only: every stream goes through the connection that the agent opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atoll_reach::{Allow, Keepalive, RelayTable, System, accept_relay, serve_relay};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::backend::Pod;
use crate::world::{Made, World, import, route, topology};

/// Lets everything in, and counts.
pub(crate) struct Counting(AtomicUsize);

impl Counting {
    /// How many streams it let in.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// An agent of `member` until `end`.
pub(crate) fn agent(relays: &RelayTable, member: &'static str, end: &CancellationToken) -> Arc<Counting> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let counting = Arc::new(Counting(AtomicUsize::new(0)));
    let agent = serve_relay(
        Box::new(far),
        Arc::clone(&counting) as Arc<dyn Allow>,
        Arc::new(System::new(Duration::from_secs(1))),
        Keepalive::default(),
        end.clone(),
    );
    tokio::spawn(end.clone().run_until_cancelled_owned(agent));
    let (table, shutdown) = (relays.clone(), end.clone());
    tokio::spawn(async move { accept_relay(Box::new(near), member.to_owned(), &table, shutdown).await });
    counting
}

impl Allow for Counting {
    fn allow(&self, host: &str, port: u16) -> Result<(String, u16), String> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok((host.to_owned(), port))
    }
}

#[tokio::test]
async fn a_relayed_member_is_served_through_its_agent_and_left_when_that_goes() {
    let relays = RelayTable::default();
    let world = World::start_as(Made { relays: relays.clone(), ..Made::default() }).await;
    let (dr, us) = (Pod::start("dr", "127.20.0.1").await, Pod::start("us", "127.20.0.2").await);
    let mut known = topology(&[("relayed", &[&dr]), ("us", &[&us])]);
    let mut facts = (**known.clusters.get("relayed").unwrap()).clone();
    // The nearest, but not reached directly.
    facts.spec.region = Some("eu".to_owned());
    known.clusters.insert(facts.name.clone(), Arc::new(facts));
    let end = CancellationToken::new();
    let counting = agent(&relays, "relayed", &end);
    world.publish(known, true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.pod() == "dr").await;
    assert!(counting.count() > 0, "by way of the agent");
    end.cancel();
    let mut failed = 0;
    world
        .until("x", "/", |a| {
            failed += usize::from(a.status != 200);
            a.pod() == "us"
        })
        .await;
    assert_eq!(failed, 0, "no request failed when the agent went");
}
