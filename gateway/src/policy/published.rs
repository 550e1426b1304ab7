//! Keys that are published at a URL: fetched when they are first needed, again when they are old or a token names one that is not known, and
//! kept when the publisher is gone. Requests wait for the first fetch alone.

use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, Uri};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::jose::Keys;
use super::peer::Peer;
use crate::plane::Plane;

/// Keys older than this are fetched again.
const OLD: Duration = Duration::from_secs(300);
/// Keys that nobody knows are asked for so often at most.
const AGAIN: Duration = Duration::from_secs(10);
/// A fetch that takes longer has failed.
const FETCH_MAX: Duration = Duration::from_secs(5);

/// Keys at a URL.
pub(crate) struct Published {
    peer: Arc<Peer>,
    uri: Uri,
    keys: ArcSwapOption<(Keys, Instant)>,
    /// When it was tried last.
    tried: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Published({})", self.uri)
    }
}

impl Published {
    pub(crate) fn new(peer: Arc<Peer>, uri: Uri) -> Self {
        Self { peer, uri, keys: ArcSwapOption::empty(), tried: Mutex::default() }
    }

    /// The keys, as fresh as they can be had; nothing where there never were any. `unknown`: one is needed that those held do not have.
    pub(crate) async fn keys(&self, plane: &Plane, unknown: bool) -> Option<Arc<(Keys, Instant)>> {
        let held = self.keys.load_full();
        if held.as_ref().is_some_and(|held| !unknown && held.1.elapsed() < OLD) {
            return held;
        }
        // One fetches; whoever has keys that may do goes on with them.
        let mut tried = match (&held, unknown) {
            (Some(_), false) => match self.tried.try_lock() {
                Ok(tried) => tried,
                Err(_) => return held,
            },
            _ => self.tried.lock().await,
        };
        let newest = self.keys.load_full();
        if newest.as_ref().map(|n| n.1) != held.as_ref().map(|h| h.1) || tried.is_some_and(|at| at.elapsed() < AGAIN) {
            return newest;
        }
        *tried = Some(Instant::now());
        match self.fetch(plane).await {
            Ok(keys) => self.keys.store(Some(Arc::new((keys, Instant::now())))),
            Err(why) => tracing::warn!(uri = %self.uri, why, "published keys not fetched"),
        }
        self.keys.load_full()
    }

    async fn fetch(&self, plane: &Plane) -> Result<Keys, String> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.uri.clone();
        let said = self.peer.ask(plane, request, FETCH_MAX).await?;
        if !said.head.status.is_success() {
            return Err(format!("it answers {}", said.head.status));
        }
        Keys::parse(&String::from_utf8_lossy(&said.body), false)
    }
}
