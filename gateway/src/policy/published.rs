//! Keys that are published at a URL ([`super::held`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};

use super::held::Held;
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
    keys: Held<Keys>,
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Published({})", self.uri)
    }
}

impl Published {
    pub(crate) fn new(peer: Arc<Peer>, uri: Uri) -> Self {
        Self { peer, uri, keys: Held::new(OLD, AGAIN) }
    }

    /// The keys, as fresh as they can be had; nothing where there never were any. `unknown`: one is needed that those held do not have.
    pub(crate) async fn keys(&self, plane: &Plane, unknown: bool) -> Option<Arc<Keys>> {
        let fetched = async {
            let fetched = self.fetch(plane).await;
            fetched.inspect_err(|why| tracing::warn!(uri = %self.uri, why, "published keys not fetched")).ok()
        };
        self.keys.get(unknown, fetched).await
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
