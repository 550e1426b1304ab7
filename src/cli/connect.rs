//! Which API server a command speaks to, and as whom.
//!
//! `atoll` uses `--kubeconfig`, then `KUBECONFIG`, then `$ATOLL_HOME/config` (default `~/.atoll/config`), then the pod's own
//! account. `atoll join` finds its member in the same way, but never through `$ATOLL_HOME/config`.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::Globals;
use super::failure::{Failure, Outcome, root_cause};
use crate::config::home;
use crate::error::of_kubeconfig;

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// After a watch has ended, until the next.
pub(crate) const WATCH_AGAIN: Duration = Duration::from_millis(500);

/// A connection to an API server.
pub(crate) struct Connection {
    /// The client.
    pub(crate) client: Client,
    /// The namespace that commands mean when none is given.
    pub(crate) namespace: String,
    /// The API server's address.
    pub(crate) url: String,
}

impl Globals {
    /// Connects to the hub's API. Nothing is sent yet.
    ///
    /// # Errors
    /// No kubeconfig, or one that can't be used.
    pub(crate) async fn hub(&self) -> Outcome<Connection> {
        // Without a home there is no file in it either.
        let file = home().ok().map(|home| home.join("config")).filter(|file| file.exists());
        self.connect(file.as_deref()).await
    }

    /// Connects to the member that a join is about.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn member(&self) -> Outcome<Connection> {
        self.connect(None).await
    }

    async fn connect(&self, fallback: Option<&Path>) -> Outcome<Connection> {
        let (kubeconfig, whence) = match (&self.kubeconfig, std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty())) {
            (Some(file), _) => (Some(read(file)?), file.display().to_string()),
            (None, Some(files)) => (from_variable(&files)?, format!("$KUBECONFIG ({})", files.display())),
            (None, None) => match fallback {
                Some(file) => (Some(read(file)?), file.display().to_string()),
                None => (None, "the pod's account".into()),
            },
        };
        let mut config = match kubeconfig {
            Some(kubeconfig) => {
                let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .map_err(|e| Failure::failed(format!("kubeconfig {whence}: {}", of_kubeconfig(&e))))?
            }
            None => Config::incluster().map_err(|_| Failure::failed(NOTHING))?,
        };
        config.connect_timeout = Some(CONNECT_MAX);
        config.default_retry = false;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config)
            .map_err(|e| Failure::failed(format!("kubeconfig {whence}: {}", root_cause(&e))))?;
        Ok(Connection { client, namespace, url })
    }
}

const NOTHING: &str =
    "no kubeconfig: give --kubeconfig FILE or set KUBECONFIG; `atoll up` writes one into ~/.atoll while it runs";

fn read(file: &Path) -> Outcome<Kubeconfig> {
    Kubeconfig::read_from(file)
        .map_err(|e| Failure::failed(format!("kubeconfig {}: {}", file.display(), of_kubeconfig(&e))))
}

fn from_variable(files: &std::ffi::OsStr) -> Outcome<Option<Kubeconfig>> {
    Kubeconfig::from_env()
        .map_err(|e| Failure::failed(format!("$KUBECONFIG ({}): {}", files.display(), of_kubeconfig(&e))))
}
