//! Pulls a pod's image as a kubelet would: from its member's own registry unless the name says another, every byte read and hashed.

use std::{io, sync::Arc};

use atoll_reach::{BoxStream, Connect, System};
use atoll_registry::{Credentials, Digest, End, Endpoint, ImageRef, Retry, audit};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::registry::{self, Registry};

/// What a stream to the registry in this process holds.
const PIPE_BYTES: usize = 64 << 10;

/// Pulls for one member.
#[derive(Clone)]
pub(crate) struct Puller {
    own: End,
    own_host: String,
}

impl Puller {
    /// Pulls from `registry`, known to others as `own_host` (`host:port`), without a socket.
    pub(crate) fn new(
        registry: Arc<Registry>,
        own_host: &str,
        credentials: Option<Credentials>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, atoll_registry::Error> {
        let endpoint = Endpoint::new(&format!("http://{own_host}"))?.with_credentials(credentials);
        let connect = Arc::new(Inside { registry, tasks, shutdown });
        Ok(Self { own: End { endpoint, connect }, own_host: own_host.to_owned() })
    }

    /// Reads and verifies all of `image`; returns what it is by digest, or why not, in words.
    pub(crate) async fn pull(&self, image: &str) -> Result<Digest, String> {
        let (host, rest) = split_host(image);
        let end = match host {
            None => self.own.clone(),
            Some(host) if host == self.own_host => self.own.clone(),
            Some(host) => {
                let endpoint = Endpoint::new(&format!("http://{host}")).map_err(|e| e.to_string())?;
                End { endpoint, connect: Arc::new(System::default()) }
            }
        };
        let image: ImageRef = rest.parse().map_err(|e| format!("{e}"))?;
        // the kubelet tries again later by itself
        let once = Retry { attempts_max: 1, ..Retry::default() };
        let closure = audit(&end, &image, &once).await.map_err(|e| e.to_string())?;
        closure.roots.into_iter().next().map(|root| root.digest).ok_or_else(|| "nothing to pull".to_owned())
    }
}

/// A registry's address before the repository, as container runtimes tell one: a first part with a dot, a port, or `localhost`.
fn split_host(image: &str) -> (Option<&str>, &str) {
    match image.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, image),
    }
}

/// The way to the member's own registry from inside the member: no socket, and no gate, for the cut is around the member.
struct Inside {
    registry: Arc<Registry>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

#[async_trait::async_trait]
impl Connect for Inside {
    async fn connect(&self, _: &str, _: u16) -> io::Result<BoxStream> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        self.tasks.spawn(registry::connection(self.registry.clone(), far, self.shutdown.clone()));
        Ok(Box::new(near))
    }
}

#[cfg(test)]
mod tests {
    use atoll_registry::backend::memory::Store;

    use super::*;
    use crate::registry::images;

    #[tokio::test]
    async fn an_image_is_pulled_only_if_every_byte_is_right() {
        let store = Arc::new(Store::default());
        let digest = images::seed(&store, "shop/web", "1");
        let key = Some(Credentials { username: "u".into(), password: "p".into() });
        let registry = Arc::new(Registry::new(store.clone(), key.clone()));
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let puller = Puller::new(registry, "127.200.0.20:5000", key, tasks, shutdown).unwrap();
        for image in ["shop/web:1", "127.200.0.20:5000/shop/web:1", &format!("shop/web@{digest}")] {
            assert_eq!(puller.pull(image).await, Ok(digest.clone()), "{image}");
        }
        let missing = puller.pull("shop/web:2").await.unwrap_err();
        assert!(missing.contains("`shop/web:2`: not found"), "{missing}");

        let manifest = store.manifest("shop/web", "1").unwrap();
        let child: serde_json::Value = serde_json::from_slice(&manifest.body).unwrap();
        let child = store.manifest("shop/web", child["manifests"][0]["digest"].as_str().unwrap()).unwrap();
        let layer: serde_json::Value = serde_json::from_slice(&child.body).unwrap();
        let layer: Digest = layer["layers"][1]["digest"].as_str().unwrap().parse().unwrap();
        store.corrupt_blob(&layer, vec![0; 100].into());
        let corrupt = puller.pull("shop/web:1").await.unwrap_err();
        assert!(corrupt.contains("not what its digest says"), "{corrupt}");
    }
}
