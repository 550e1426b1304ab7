//! What can be set. Everything has a default that fits a laptop.

use std::{path::PathBuf, time::Duration};

/// Settings of one server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Resources whose creator is written into annotations that no client may set.
    pub stamps: Vec<Stamp>,
    /// What `/version` says as gitVersion. kubectl warns when it is more than one minor version off.
    pub version_git: String,
    /// Namespaces made at the first start.
    pub namespaces: Vec<String>,
    /// The network from which Services get their cluster addresses, as `a.b.c.d/len`.
    pub service_cidr: String,
    /// Ports from which NodePort and LoadBalancer Services get theirs.
    pub node_ports: std::ops::RangeInclusive<u16>,
    /// Fixed bearer tokens and whom each stands for.
    pub tokens: Vec<(String, User)>,
    /// A request body, and an object, is at most this long.
    pub body_bytes_max: usize,
    /// Changes kept per resource for watchers; older revisions get 410.
    pub history_len_max: usize,
    /// Bytes of changes kept per resource.
    pub history_bytes_max: usize,
    /// Writes in one transaction.
    pub batch_len_max: usize,
    /// Connections served at once; more wait.
    pub connections_max: usize,
    /// How often a watch that asked for bookmarks gets one.
    pub bookmark_every: Duration,
    /// A watch without timeoutSeconds ends after this long (as a real server's do).
    pub watch_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stamps: Vec::new(),
            version_git: "v1.34.0+atoll".into(),
            namespaces: ["default", "kube-system", "kube-public", "atoll-system"].map(Into::into).into(),
            service_cidr: "10.96.0.0/16".into(),
            node_ports: 30000..=32767,
            tokens: Vec::new(),
            body_bytes_max: 3 << 20,
            history_len_max: 1000,
            history_bytes_max: 2 << 20,
            batch_len_max: 256,
            connections_max: 512,
            bookmark_every: Duration::from_secs(30),
            watch_timeout: Duration::from_secs(40 * 60),
        }
    }
}

/// Who created an object of this resource is written into these annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The API group.
    pub group: String,
    /// The plural name.
    pub resource: String,
    /// The annotation that gets the user's name; the one for the groups is this with `-groups` (joined by commas).
    pub annotation: String,
}

/// Somebody who asks: a name and the groups it is in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The name, as RBAC subjects write it.
    pub name: String,
    /// The groups. `system:authenticated` is added by the server.
    pub groups: Vec<String>,
}

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Nowhere: gone when the server is dropped.
    Memory,
    /// In one redb file, made if absent.
    File(PathBuf),
}
