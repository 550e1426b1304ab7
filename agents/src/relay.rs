//! Relay connections: one to the hub, one to each DNS server and gateway that the hub names.
//!
//! In: the sites wanted. Out: connections on which we serve CONNECT into the member. They are kept while the hub is silent,
//! and found again after a restart without it, from what was stored. After a renewal new ones are opened before the old end, and where a site
//! asks for one more, as its process does that gives its place to the next, that is opened beside the one there is.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::topology::Site;
use atoll_reach::{AGAIN, Allow, Connect, Expect, Keepalive, RELAY_ALPN, TlsIdentity, host_and_port, serve_relay};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::credentials::Shared;
use crate::desired::Word;

const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long streams of an old connection may go on after a renewal.
const DRAIN: Duration = Duration::from_secs(60);
/// More sites than this are not served.
const SITES_MAX: usize = 64;
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
        let mut kept: BTreeMap<String, CancellationToken> = BTreeMap::new();
        let mut sites = self.shared.get().sites;
        loop {
            self.keep(&sites, &mut kept, &tracker, &shutdown);
            tokio::select! {
                Ok(()) = word.changed() => {}
                Ok(()) = rotated.changed() => {
                    for (_, old) in std::mem::take(&mut kept) {
                        tracker.spawn(later(old, DRAIN, shutdown.clone()));
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
        kept: &mut BTreeMap<String, CancellationToken>,
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) {
        let mut wanted: BTreeMap<String, Expect> = sites
            .iter()
            .filter(|s| !s.relay.is_empty())
            .take(SITES_MAX)
            .map(|s| (s.relay.clone(), Expect::Site(None)))
            .collect();
        wanted.insert(self.shared.get().hub, Expect::Hub);
        kept.retain(|address, token| {
            let keep = wanted.contains_key(address);
            if !keep {
                token.cancel();
            }
            keep
        });
        for (address, expect) in wanted {
            kept.entry(address.clone()).or_insert_with(|| {
                let token = shutdown.child_token();
                tracker.spawn(self.clone().one(address, expect, tracker.clone(), token.clone()));
                token
            });
        }
    }

    /// One connection, opened again whenever it ends, and beside it when the site wants one more.
    async fn one(self, address: String, expect: Expect, tracker: TaskTracker, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        let mut older: VecDeque<CancellationToken> = VecDeque::new();
        while !shutdown.is_cancelled() {
            let (started, again, end) = (Instant::now(), Arc::new(Notify::new()), shutdown.child_token());
            let once = self.clone().once(address.clone(), expect.clone(), Arc::clone(&again), end.clone());
            let mut running = tracker.spawn(once);
            let ended = tokio::select! {
                ended = &mut running => Some(ended),
                () = again.notified() => None,
            };
            match ended {
                Some(Ok(Err(error))) => tracing::debug!(address, %error, "relay connection ended"),
                Some(_) => {}
                None => {
                    // What flows through the old one goes on there, until its end.
                    tracing::debug!(address, "the site wants one more relay connection");
                    older.push_back(end);
                    if older.len() > OLDER_MAX
                        && let Some(oldest) = older.pop_front()
                    {
                        oldest.cancel();
                    }
                    continue;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.after(started.elapsed())) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn once(
        self,
        address: String,
        expect: Expect,
        again: Arc<Notify>,
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
        let allow: Arc<dyn Allow> = Arc::new(Again { allow: Arc::clone(&self.allow), again });
        let connect = Arc::clone(&self.connect);
        let ended = serve_relay(secured.stream, allow, connect, Keepalive::default(), shutdown.clone()).await;
        self.live.dec();
        ended
    }
}

/// Hears a site that wants one more connection, where it asks for a stream to a name that nobody has.
struct Again {
    allow: Arc<dyn Allow>,
    again: Arc<Notify>,
}

impl Allow for Again {
    fn allow(&self, host: &str, port: u16) -> Result<(String, u16), String> {
        if host == AGAIN {
            self.again.notify_one();
            return Err("one more connection is opened".to_owned());
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
    async fn a_site_that_wants_one_more_connection_is_heard_and_led_nowhere_by_that() {
        let again = Arc::new(Notify::new());
        let allow = Again { allow: Arc::new(Everything), again: Arc::clone(&again) };
        assert_eq!(allow.allow("10.0.0.1", 80).unwrap(), ("10.0.0.1".to_owned(), 80));
        assert!(futures::poll!(std::pin::pin!(again.notified())).is_pending());
        allow.allow(AGAIN, 1).unwrap_err();
        again.notified().await;
    }
}
