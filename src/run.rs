//! One part each, for production: hub, DNS server, gateway, agent.

use std::path::PathBuf;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// What `atoll agent` and `atoll join --foreground` say.
#[derive(Debug, Default)]
pub(crate) struct AgentOptions {
    /// The configuration file.
    pub(crate) config: Option<PathBuf>,
    /// host:port of the hub.
    pub(crate) hub: Option<String>,
    /// A join token.
    pub(crate) token: Option<String>,
    /// The member's kubeconfig; else `KUBECONFIG`, else the pod's account.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Its context.
    pub(crate) context: Option<String>,
}

/// Runs the hub until a signal.
pub(crate) async fn hub(config: Option<PathBuf>) -> anyhow::Result<()> {
    anyhow::bail!("{config:?}")
}

/// Runs the DNS server until a signal.
pub(crate) async fn dns(config: Option<PathBuf>) -> anyhow::Result<()> {
    anyhow::bail!("{config:?}")
}

/// Runs the gateway until a signal.
pub(crate) async fn gateway(config: Option<PathBuf>) -> anyhow::Result<()> {
    anyhow::bail!("{config:?}")
}

/// Runs a member's agent until a signal.
pub(crate) async fn agent(options: AgentOptions) -> anyhow::Result<()> {
    anyhow::bail!("{options:?}")
}

/// Our CRDs, and with `standard` also those of others that we use.
pub(crate) fn crds(standard: bool) -> Vec<CustomResourceDefinition> {
    let mut crds = atoll_api::kinds::crds();
    if standard {
        crds.extend(atoll_api::kinds::standard_crds());
    }
    crds
}
