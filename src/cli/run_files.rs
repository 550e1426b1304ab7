//! Where the servers of this machine are: what the running `atoll up` wrote into its run directory (`ready.json`).

use std::path::PathBuf;

use serde::Deserialize;

use super::Globals;
use crate::config;

/// What `ready.json` says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ready {
    /// host:port of the DNS server.
    pub(crate) dns: Option<String>,
    /// host:port of the gateway, HTTP.
    pub(crate) http: Option<String>,
    /// host:port of the admin port.
    pub(crate) admin: Option<String>,
}

/// Where an admin port is when nobody says so.
const ADMIN: &str = "127.0.0.1:7071";
const READY: &str = "ready.json";

/// The run directory of the `atoll up` that is meant: where the kubeconfig given lies, else where the one in `$ATOLL_HOME` lies.
pub(crate) fn directory(globals: &Globals) -> Option<PathBuf> {
    let variable = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = config::home().ok().map(|home| home.join("config"));
    let candidates = [globals.kubeconfig.clone(), variable, home];
    let beside = |file: PathBuf| Some(file.canonicalize().ok()?.parent()?.to_owned());
    candidates.into_iter().flatten().filter_map(beside).find(|directory| directory.join(READY).exists())
}

impl Ready {
    /// The run directory is where the kubeconfig is: the one given, else the one that `$ATOLL_HOME/config` points to.
    pub(crate) fn find(globals: &Globals) -> Option<Self> {
        let text = std::fs::read_to_string(directory(globals)?.join(READY)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// The admin port: as given, as found, else the default.
    pub(crate) fn admin(globals: &Globals, given: Option<String>) -> String {
        given.or_else(|| Self::find(globals)?.admin).unwrap_or_else(|| ADMIN.to_owned())
    }
}
