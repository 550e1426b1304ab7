//! Telling secondaries that a zone has changed (RFC 1996): at once, again until they answer, and no more once a newer change is told.
//!
//! In: the zones as they are. Out: NOTIFY messages by UDP, signed where the Zone says so. A secondary that stays silent looks at the SOA
//! by itself. Bounds: messages in flight, tries.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::ZoneNotify;
use atoll_reach::{Listen, udp_connected};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::metrics::Metrics;
use crate::names::absolute;
use crate::table::Table;
use crate::tsig::{Key, Session};
use crate::zones::Zone;

/// RFC 1996 §3.6 leaves the interval to us; it doubles.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES: u32 = 6;
/// So long an answer is waited for, and with it a place among those in flight kept: a secondary that is gone holds up the others no longer.
const ANSWER: Duration = Duration::from_secs(1);
const IN_FLIGHT_MAX: usize = 64;
const PORT: u16 = 53;

/// One zone at one secondary.
type Target = (Name, SocketAddr);

/// Tells until its owner drops it; `tables` has every swap.
pub(crate) async fn run(mut tables: watch::Receiver<Arc<Table>>, listen: Arc<dyn Listen>, metrics: Metrics) {
    let mut told: HashMap<Target, u32> = HashMap::new();
    let mut running: HashMap<Target, AbortHandle> = HashMap::new();
    let mut telling = JoinSet::new();
    let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    // The first one counts as a swap.
    tables.mark_changed();
    loop {
        tokio::select! {
            changed = tables.changed() => if changed.is_err() { return },
            Some(_) = telling.join_next() => continue,
        }
        let table = Arc::clone(&tables.borrow_and_update());
        let wanted = targets(&table);
        told.retain(|target, _| wanted.contains_key(target));
        running.retain(|target, handle| wanted.contains_key(target) || !stop(handle));
        for (target, (zone, key)) in wanted {
            if told.insert(target.clone(), zone.serial()) == Some(zone.serial()) {
                continue;
            }
            let (listen, slots, at) = (Arc::clone(&listen), Arc::clone(&slots), target.1);
            let (soa, metrics) = (zone.soa(), metrics.clone());
            let handle = telling.spawn(async move {
                let answered = tell(listen.as_ref(), &slots, at, &soa, key).await;
                metrics.notify(&soa.name, if answered { "answered" } else { "silent" });
            });
            if let Some(older) = running.insert(target, handle) {
                older.abort();
            }
        }
    }
}

fn stop(handle: &AbortHandle) -> bool {
    handle.abort();
    true
}

/// Everybody who is to be told, by which key.
fn targets(table: &Table) -> HashMap<Target, (Arc<Zone>, Option<Arc<Key>>)> {
    let mut targets = HashMap::new();
    for zone in table.zones.iter() {
        let Some((_, facts)) = zone.object() else { continue };
        for target in &facts.spec.notify {
            let Some(at) = address(target) else { continue };
            let key = target.tsig.as_deref().and_then(absolute).and_then(|name| table.keys.get(&name).cloned());
            if target.tsig.is_some() && key.is_none() {
                tracing::warn!(zone = %zone.apex(), %at, key = target.tsig, "not told: there is no such key");
                continue;
            }
            targets.insert((zone.apex().clone(), at), (Arc::clone(zone), key));
        }
    }
    targets
}

fn address(target: &ZoneNotify) -> Option<SocketAddr> {
    let text = &target.address;
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT)))
}

/// Tells one secondary; says whether it answered.
async fn tell(listen: &dyn Listen, slots: &Semaphore, at: SocketAddr, soa: &Record, key: Option<Arc<Key>>) -> bool {
    let mut wait = AGAIN;
    for _ in 0..TRIES {
        let slot = slots.acquire().await;
        let next = Instant::now() + wait;
        match timeout(ANSWER, attempt(listen, at, soa, key.clone())).await {
            Ok(Ok(code)) => {
                tracing::debug!(zone = %soa.name, %at, code, "secondary told");
                return true;
            }
            Ok(Err(error)) => tracing::debug!(zone = %soa.name, %at, %error, "secondary not told yet"),
            Err(_) => {}
        }
        drop(slot);
        sleep_until(next).await;
        wait *= 2;
    }
    tracing::warn!(zone = %soa.name, %at, "secondary does not answer NOTIFY");
    false
}

async fn attempt(listen: &dyn Listen, at: SocketAddr, soa: &Record, key: Option<Arc<Key>>) -> std::io::Result<u16> {
    let socket = udp_connected(listen, at).await?;
    let id = rand::random();
    let mut message = Message::new(id, MessageType::Query, OpCode::Notify);
    message.metadata.authoritative = true;
    message.add_query(Query::query(soa.name.clone(), RecordType::SOA));
    message.add_answer(soa.clone());
    let mut octets = message.to_vec().map_err(std::io::Error::other)?;
    if let Some(key) = key {
        let now_s = jiff::Timestamp::now().as_second().unsigned_abs();
        octets = Session::begin(key, id).sign(octets, now_s);
    }
    socket.send(&octets).await?;
    let mut reply = vec![0; 1024];
    loop {
        let len = socket.recv(&mut reply).await?;
        let answers = len >= 12 && reply[..2] == id.to_be_bytes() && reply[2] & 0x80 != 0;
        if answers {
            return Ok(u16::from(reply[3] & 0x0f));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use atoll_reach::Accept;

    use super::*;

    /// A system whose sockets never come, and how many were asked for so far.
    #[derive(Default)]
    struct Stuck(AtomicUsize);

    #[async_trait::async_trait]
    impl Listen for Stuck {
        async fn tcp(&self, _: SocketAddr) -> std::io::Result<Box<dyn Accept>> {
            std::future::pending().await
        }

        async fn udp(&self, _: SocketAddr) -> std::io::Result<tokio::net::UdpSocket> {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn secondaries_that_are_gone_hold_up_the_others_for_a_second_each() {
        let mut facts = atoll_api::facts::Facts::default();
        facts.put("settings", &serde_json::json!({"apex": "atoll.internal", "defaultSet": "prod"}));
        for n in 0..200 {
            let spec = serde_json::json!({"apex": format!("z{n}.example"), "notify": [{"address": "192.0.2.1"}]});
            facts.put(format!("zone/z{n}"), &serde_json::json!({"serial": 1, "spec": spec}));
        }
        let topology = atoll_api::topology::Topology::from_facts(atoll_api::topology::Version::default(), &facts);
        let table = Table::new(&Arc::new(topology), &crate::config::Config::default(), &crate::geo::Geo::default());
        let (swaps, tables) = watch::channel(Arc::new(table));
        let (stuck, metrics) = (Arc::new(Stuck::default()), Metrics::new(&prometheus::Registry::new()).unwrap());
        let listen: Arc<dyn Listen> = stuck.clone();
        let running = tokio::spawn(run(tables, listen, metrics));
        tokio::time::sleep(Duration::from_millis(3500)).await;
        assert!(stuck.0.load(Ordering::Relaxed) >= 200, "each was tried: {}", stuck.0.load(Ordering::Relaxed));
        drop(swaps);
        running.await.unwrap();
    }
}
