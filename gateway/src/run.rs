//! The gateway as a whole.

use tokio_util::sync::CancellationToken;

use crate::{Config, Error, Resources};

/// A handle to a running gateway, for console, admin port and commands.
#[derive(Debug, Clone)]
pub struct Server {}

impl Server {
    /// Whether it has a route table, the last good one included.
    pub fn is_ready(&self) -> bool {
        false
    }

    /// What a request for `host` and `path` from a region (absent: from where the gateway stands) would go through.
    pub async fn explain(&self, host: &str, path: &str, from: Option<&str>) -> serde_json::Value {
        serde_json::json!({"host": host, "path": path, "from": from, "ready": false})
    }
}

/// Runs the gateway until `shutdown`.
///
/// # Errors
/// See [`Error`]: mistakes of the caller only.
pub async fn run(config: Config, mut resources: Resources, shutdown: CancellationToken) -> Result<(), Error> {
    if let Some(started) = resources.started.take() {
        let _ = started.send(Server {});
    }
    tracing::info!(instance = config.instance, http = %resources.http.local_addr(), "gateway");
    shutdown.cancelled().await;
    Ok(())
}
