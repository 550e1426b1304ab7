//! `atoll up`: a whole federation in one process, on loopback, without root.
//!
//! ```text
//!   ports ─► store, kinds ─┬─► hub ─► tokens ─► agents ═ mTLS ═► hub, DNS, gateway
//!                          ├─► DNS server, gateway                  │
//!                          └─► objects of the demo                  │
//!   demo members (API servers, pods, DNS, registries) ──────────────┘
//! ```
//!
//! In: what was typed, a configuration. Out: a ready line or a page of commands to try; an empty home after the end, unless a data
//! directory was given. Everything starts at once and nothing waits for what it does not need.

mod control;
mod federation;
mod members;
mod ports;
mod rundir;
mod seed;
mod show;
mod view;

use std::path::PathBuf;

pub(crate) use control::{Action, control};
use federation::Federation;
use ports::Ports;
use rundir::RunDir;

use crate::config::Config;
use crate::error::Exit;
use crate::{signals, telemetry};

/// What was typed.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Demo members by name; empty: none; absent: the five.
    pub(crate) members: Option<Vec<String>>,
    /// Keeps the state.
    pub(crate) data_dir: Option<PathBuf>,
    /// Says where to listen and what to advertise.
    pub(crate) config: Option<PathBuf>,
    /// One line of JSON when ready.
    pub(crate) json: bool,
}

/// Runs it until a signal.
///
/// # Errors
/// A configuration, port, directory or store that can't be used; a part that ended.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    telemetry::log("error");
    let mut config = Config::read(options.config.as_deref())?;
    if config.kubeconfig.is_some() || config.embedded == Some(false) {
        let why = "`atoll up` brings its own API server: leave kubeconfig and embedded out, or run `atoll hub`";
        return Err(Exit::Usage(why.into()).into());
    }
    let specs = members::specs(options.members, &mut config)?;
    // From here on there is something to clean up.
    let shutdown = signals::shutdown()?;
    let run_dir = RunDir::make(options.data_dir.as_deref().or(config.data_dir.as_deref()))?;
    let ended = match Ports::bind(&config) {
        Ok(ports) => {
            let mut federation = Federation::new(!specs.is_empty(), config, ports, &run_dir, shutdown.clone());
            let ended = live(&mut federation, specs, options.json, &run_dir).await;
            shutdown.cancel();
            let closed = federation.end().await;
            ended.and(closed)
        }
        Err(error) => Err(error),
    };
    run_dir.leave();
    ended
}

async fn live(
    federation: &mut Federation,
    specs: Vec<members::Spec>,
    json: bool,
    run_dir: &RunDir,
) -> anyhow::Result<()> {
    let shutdown = federation.shutdown().clone();
    let Some(started) = shutdown.run_until_cancelled(federation.start(specs, run_dir)).await else { return Ok(()) };
    started?;
    let control = control::listen(run_dir)?;
    show::ready(federation, json, run_dir)?;
    tokio::select! {
        () = control::serve(control, federation) => Ok(()),
        () = shutdown.cancelled() => Ok(()),
    }
}
