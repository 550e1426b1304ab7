//! Relay connections: one to the hub, one to each DNS server and gateway that the hub names.
//!
//! In: the sites wanted. Out: connections on which we serve CONNECT into the member. They are kept while the hub is silent,
//! and found again after a restart without it, from what was stored. After a renewal new ones are opened before the old end, and where a site
//! asks for one more, as its process does that gives its place to the next, that is opened beside the one there is. Where several replicas have one
//! address there are as many connections, and who reaches a replica that has one already tries again until each has one.

mod behind;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_api::topology::Site;
use atoll_reach::{
    AGAIN, Allow, Connect, Expect, Keepalive, RELAY_ALPN, REPLICA, TlsIdentity, host_and_port, serve_relay,
};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::behind::Behind;
use crate::backoff::Backoff;
use crate::credentials::Shared;
use crate::desired::Word;

const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long streams of an old connection may go on after a renewal.
const DRAIN: Duration = Duration::from_secs(60);
/// More sites than this are not served.
const SITES_MAX: usize = 64;
/// Replicas behind one address; the others of more are not looked for.
const REPLICAS_MAX: usize = 16;
/// Tries in a row to reach another replica, before they become fewer.
const EAGER_MAX: u32 = 24;
/// Older connections to one site that go on beside the newest.
const OLDER_MAX: usize = 3;

/// Keeps the relay connections.
#[derive(Clone)]
pub(crate) struct Relays {
    pub(crate) shared: Shared,
    pub(crate) tls: TlsIdentity,
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) allow: Arc<dyn Allow>,
    pub(crate) live: prometheus::IntGauge,
}

impl Relays {
    /// Runs until `shutdown`, and ends with all its connections.
    pub(crate) async fn run(
        self,
        mut word: watch::Receiver<Word>,
        mut rotated: watch::Receiver<u64>,
        shutdown: CancellationToken,
    ) {
        let tracker = TaskTracker::new();
        let mut kept = BTreeMap::new();
        let mut sites = self.shared.get().sites;
        loop {
            self.keep(&sites, &mut kept, &tracker, &shutdown);
            tokio::select! {
                Ok(()) = word.changed() => {}
                Ok(()) = rotated.changed() => {
                    for (_, Kept { end, .. }) in std::mem::take(&mut kept) {
                        tracker.spawn(later(end, DRAIN, shutdown.clone()));
                    }
                }
                () = shutdown.cancelled() => break,
            }
            let desired = word.borrow_and_update().desired.clone();
            let Some(desired) = desired else { continue };
            sites = desired.sites.values().map(|site| (**site).clone()).collect();
            tokio::select! {
                () = self.store(&sites) => {}
                () = shutdown.cancelled() => break,
            }
        }
        tracker.close();
        tracker.wait().await;
    }

    /// Stores the sites where they differ. Where that fails it is tried again with the hub's next word.
    async fn store(&self, sites: &[Site]) {
        if self.shared.get().sites == sites {
            return;
        }
        if let Err(error) = self.shared.change(|stored| stored.sites = sites.to_vec()).await {
            tracing::warn!(%error, "the sites to keep relays to could not be stored yet");
        }
    }

    /// Starts what is wanted and missing, ends what is kept and not wanted.
    fn keep(
        &self,
        sites: &[Site],
        kept: &mut BTreeMap<String, Kept>,
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) {
        let mut wanted: BTreeMap<String, (Expect, BTreeSet<String>)> = BTreeMap::new();
        for site in sites.iter().filter(|s| !s.relay.is_empty()).take(SITES_MAX) {
            let (_, replicas) = wanted.entry(site.relay.clone()).or_insert((Expect::Site(None), BTreeSet::new()));
            // Who is silent may be gone.
            if !site.silent && replicas.len() < REPLICAS_MAX {
                replicas.insert(site.instance.clone());
            }
        }
        wanted.insert(self.shared.get().hub, (Expect::Hub, BTreeSet::new()));
        kept.retain(|address, kept| {
            let keep = wanted.contains_key(address);
            if !keep {
                kept.end.cancel();
            }
            keep
        });
        for (address, (expect, replicas)) in wanted {
            let begin = || Kept { behind: Behind::default(), end: shutdown.child_token() };
            let Kept { behind, end } = kept.entry(address.clone()).or_insert_with(begin);
            for _ in 0..behind.want(&replicas) {
                let way = Way { address: address.clone(), expect: expect.clone(), behind: behind.clone() };
                tracker.spawn(self.clone().one(way, tracker.clone(), end.clone()));
            }
        }
    }

    /// One connection, opened again whenever it ends, and beside it when the site wants one more.
    async fn one(self, way: Way, tracker: TaskTracker, shutdown: CancellationToken) {
        let address = &way.address;
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        let (mut older, mut eager): (VecDeque<CancellationToken>, u32) = (VecDeque::new(), 0);
        while !shutdown.is_cancelled() {
            let (started, again, end) = (Instant::now(), Arc::new(Notify::new()), shutdown.child_token());
            let older_now = CancellationToken::new();
            let once = self.clone().once(way.clone(), Arc::clone(&again), older_now.clone(), end.clone());
            let mut running = tracker.spawn(once);
            let ended = tokio::select! {
                ended = &mut running => Some(ended),
                () = again.notified() => None,
            };
            // Whom a balancer leads to is luck: that is tried again at once, for some time.
            let is_doubled = matches!(&ended, Some(Ok(Err(error))) if error.kind() == io::ErrorKind::AlreadyExists);
            match ended {
                Some(Ok(Err(error))) => tracing::debug!(address, %error, "relay connection ended"),
                Some(_) => {}
                None => {
                    // What flows through the old one goes on there, until its end.
                    tracing::debug!(address, "the site wants one more relay connection");
                    older_now.cancel();
                    older.push_back(end);
                    if older.len() > OLDER_MAX
                        && let Some(oldest) = older.pop_front()
                    {
                        oldest.cancel();
                    }
                    continue;
                }
            }
            if way.behind.drop_surplus() {
                break;
            }
            eager = if is_doubled { eager + 1 } else { 0 };
            let pause = if is_doubled && eager < EAGER_MAX { BACKOFF_MIN } else { backoff.after(started.elapsed()) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// `older`: there is one that is newer, and counts instead.
    async fn once(
        self,
        Way { address, expect, behind }: Way,
        again: Arc<Notify>,
        older: CancellationToken,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let (host, port) = host_and_port(&address).ok_or_else(|| io::Error::other("not host:port"))?;
        let dial = async {
            let tcp = self.connect.connect(host, port).await?;
            self.tls.connect(tcp, host, expect, &[RELAY_ALPN]).await
        };
        let secured = tokio::select! {
            secured = dial => secured?,
            () = shutdown.cancelled() => return Ok(()),
        };
        if secured.alpn.as_deref() != Some(RELAY_ALPN) {
            return Err(io::Error::other("the site does not relay"));
        }
        self.live.inc();
        let (tell, told) = oneshot::channel();
        let allow: Arc<dyn Allow> =
            Arc::new(Heard { allow: Arc::clone(&self.allow), again, replica: Mutex::new(Some(tell)) });
        let connect = Arc::clone(&self.connect);
        let served = serve_relay(secured.stream, allow, connect, Keepalive::default(), shutdown.clone());
        let doubled = async {
            if let Ok(replica) = told.await {
                let Some(reached) = behind.take(&replica) else { return };
                older.cancelled().await;
                drop(reached);
            }
            std::future::pending().await
        };
        let ended = tokio::select! {
            ended = served => ended,
            () = doubled => {
                let why = "the replica that it reached has one already, and another has none";
                Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
            }
        };
        self.live.dec();
        ended
    }
}

/// The connections to one address.
struct Kept {
    behind: Behind,
    end: CancellationToken,
}

/// Where a connection goes.
#[derive(Clone)]
struct Way {
    address: String,
    expect: Expect,
    behind: Behind,
}

/// Hears what a site says of itself by asking for a stream to a name that nobody has: that it wants one more connection, or which replica it is.
struct Heard {
    allow: Arc<dyn Allow>,
    again: Arc<Notify>,
    replica: Mutex<Option<oneshot::Sender<String>>>,
}

impl Allow for Heard {
    fn allow(&self, host: &str, port: u16) -> Result<(String, u16), String> {
        if host == AGAIN {
            self.again.notify_one();
            return Err("one more connection is opened".to_owned());
        }
        if let Some(replica) = host.strip_suffix(REPLICA) {
            if let Some(tell) = self.replica.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _ = tell.send(replica.to_owned());
            }
            return Err("heard".to_owned());
        }
        self.allow.allow(host, port)
    }
}

async fn later(token: CancellationToken, after: Duration, shutdown: CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(after) => {}
        () = shutdown.cancelled() => {}
    }
    token.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Everything;

    impl Allow for Everything {
        fn allow(&self, host: &str, port: u16) -> Result<(String, u16), String> {
            Ok((host.to_owned(), port))
        }
    }

    #[tokio::test]
    async fn what_a_site_says_of_itself_is_heard_and_it_is_led_nowhere_by_that() {
        let (again, (tell, told)) = (Arc::new(Notify::new()), oneshot::channel());
        let (everything, replica) = (Arc::new(Everything), Mutex::new(Some(tell)));
        let allow = Heard { allow: everything, again: Arc::clone(&again), replica };
        assert_eq!(allow.allow("10.0.0.1", 80).unwrap(), ("10.0.0.1".to_owned(), 80));
        assert!(futures::poll!(std::pin::pin!(again.notified())).is_pending());
        allow.allow(AGAIN, 1).unwrap_err();
        again.notified().await;
        for name in ["gateway-2", "another"] {
            allow.allow(&format!("{name}{REPLICA}"), 1).unwrap_err();
        }
        assert_eq!(told.await.unwrap(), "gateway-2");
    }
}
