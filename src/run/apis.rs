//! Clients of API servers: the hub's and members', by kubeconfig or by the pod's account.

use std::path::Path;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::error::Exit;

/// A member's or hub's API.
pub(crate) struct Reached {
    pub(crate) client: Client,
    /// Its host and port.
    pub(crate) server: Option<(String, u16)>,
}

/// The API that a kubeconfig file names.
///
/// # Errors
/// [`Exit::Usage`] when the file can't be read or used; nothing is dialed yet.
pub(crate) async fn by_file(file: &Path, context: Option<&str>) -> anyhow::Result<Reached> {
    let usage = || Exit::Usage(format!("kubeconfig {}", file.display()));
    let kubeconfig = Kubeconfig::read_from(file).with_context(usage)?;
    by_kubeconfig(kubeconfig, context).await.with_context(usage)
}

/// The API that a kubeconfig names.
///
/// # Errors
/// When it names no cluster, or its certificates or keys are broken.
pub(crate) async fn by_kubeconfig(kubeconfig: Kubeconfig, context: Option<&str>) -> anyhow::Result<Reached> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    reached(Config::from_custom_kubeconfig(kubeconfig, &options).await?)
}

/// The API of the cluster in which this process is a pod; nothing if it is none.
///
/// # Errors
/// When there is an account but it can't be used.
pub(crate) fn by_account() -> anyhow::Result<Option<Reached>> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        return Ok(None);
    }
    Ok(Some(reached(Config::incluster().context("the pod's service account")?)?))
}

/// The file that `KUBECONFIG` names, if any.
///
/// # Errors
/// [`Exit::Usage`] when it can't be read or used.
pub(crate) async fn by_environment(context: Option<&str>) -> anyhow::Result<Option<Reached>> {
    if std::env::var_os("KUBECONFIG").is_none_or(|said| said.is_empty()) {
        return Ok(None);
    }
    let usage = || Exit::Usage("the kubeconfig that KUBECONFIG names".into());
    match Kubeconfig::from_env().with_context(usage)? {
        Some(kubeconfig) => Ok(Some(by_kubeconfig(kubeconfig, context).await.with_context(usage)?)),
        None => Ok(None),
    }
}

fn reached(config: Config) -> anyhow::Result<Reached> {
    let port =
        config.cluster_url.port_u16().unwrap_or(if config.cluster_url.scheme_str() == Some("http") { 80 } else { 443 });
    let server = config.cluster_url.host().map(|h| (h.trim_matches(['[', ']']).to_owned(), port));
    Ok(Reached { client: Client::try_from(config)?, server })
}
