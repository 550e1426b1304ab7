//! `atoll hub snapshot FILE` and `atoll hub restore FILE`: the embedded store, saved while it runs and put back while it does not.
//!
//! A snapshot holds every object, the CA and all Secrets: it is written for its owner alone. After a restore the hub's epoch is greater than
//! any that agents and data planes have obeyed, else they would refuse a hub that was set back.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use http_body_util::BodyExt as _;
use kube::client::Body;

use super::Globals;
use super::failure::{Failure, Outcome, root_cause};
use super::output::note;
use crate::config::{self, Config};
use crate::embedded::Embedded;
use crate::error::Exit;
use crate::telemetry;

/// Save everything in the embedded store of a running hub.
#[derive(Debug, clap::Args)]
pub(crate) struct Snapshot {
    /// The file to make; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Put a snapshot in the place of the embedded store of a stopped hub.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The snapshot
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The hub's configuration, whose dataDir is meant
    #[arg(long, value_name = "FILE", required_unless_present = "data_dir", conflicts_with = "data_dir")]
    config: Option<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Snapshot {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let hub = globals.hub().await?;
        let request =
            http::Request::get("/snapshot").body(Body::empty()).map_err(|e| Failure::failed(e.to_string()))?;
        let answer = hub.client.send(request).await.map_err(Failure::api(format!("API server {}", hub.url)))?;
        match answer.status().as_u16() {
            200 => {}
            403 => return Err(Failure::refused("a snapshot holds every Secret: only the administrator may have one")),
            404 => {
                let why = format!("API server {} has no snapshots: it is no embedded one; save its etcd", hub.url);
                return Err(Failure::failed(why));
            }
            code => return Err(Failure::failed(format!("API server {}: {code}", hub.url))),
        }
        let broken = |e: kube::Error| Failure::unreachable(format!("API server {}: {}", hub.url, root_cause(&e)));
        let bytes = answer.into_body().collect().await.map_err(broken)?.to_bytes();
        save(&self.file, &bytes).map_err(|e| Failure::failed(format!("{}: {e}", self.file.display())))?;
        note(format!("saved to {}; it holds all Secrets: keep it as safe as those", self.file.display()));
        Ok(())
    }
}

fn save(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    out.write_all(bytes).and_then(|()| out.sync_all()).inspect_err(|_| drop(std::fs::remove_file(file)))
}

impl Restore {
    /// Runs it.
    pub(crate) async fn run(self) -> Outcome {
        Ok(self.restore().await?)
    }

    async fn restore(self) -> anyhow::Result<()> {
        let dir = match self.data_dir {
            Some(dir) => dir,
            None => Config::read(self.config.as_deref())?
                .data_dir
                .ok_or_else(|| Exit::Usage("dataDir is missing: where is the hub's own store?".into()))?,
        };
        let dir = config::data_dir(&dir)?;
        let _ours = config::claim(&dir)?;
        telemetry::quiet_panics();
        let store = Embedded::over(dir.join("hub.redb"));
        store.restore(&self.file).await?;
        note(format!("{} is restored from {}; start the hub", dir.join("hub.redb").display(), self.file.display()));
        Ok(())
    }
}
