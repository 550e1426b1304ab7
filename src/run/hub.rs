//! `atoll hub`: the hub over an API server of its own, or over a real one.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use atoll_federation::{DataPlaneView, Hub, NoView, Resources, WebhookTarget};
use atoll_reach::{Accept, Connect, RelayTable, System, host_and_port};
use kube::Client;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::push::Push;
use super::{Part, apis};
use crate::admin::{self, Admin};
use crate::bind::{self, Strict};
use crate::config::{self, Config};
use crate::embedded::Embedded;
use crate::error::Exit;
use crate::telemetry::Metrics;
use crate::{crds, files, signals, telemetry};

/// With what a hub is started, alone or in `atoll up`.
pub(crate) struct HubParts {
    pub(crate) config: atoll_federation::Config,
    pub(crate) client: Client,
    pub(crate) listener: Box<dyn Accept>,
    pub(crate) webhook: Option<Box<dyn Accept>>,
    pub(crate) console: Option<Box<dyn Accept>>,
    pub(crate) metrics: Metrics,
    pub(crate) view: Arc<dyn DataPlaneView>,
    pub(crate) started: oneshot::Sender<Hub>,
}

/// Runs a hub until `shutdown`.
pub(crate) async fn run_hub(parts: HubParts, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut at = parts.listener.local_addr();
    if at.ip().is_unspecified() {
        at.set_ip(if at.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let connect: Arc<dyn Connect> = Arc::new(System::default());
    let push = Arc::new(Push { hub: at, connect: Arc::clone(&connect), metrics: parts.metrics.clone() });
    let resources = Resources {
        client: parts.client,
        listener: parts.listener,
        webhook: parts.webhook,
        console: parts.console,
        connect,
        relays: RelayTable::default(),
        metrics: parts.metrics.of("hub"),
        push,
        view: parts.view,
        started: Some(parts.started),
    };
    // It is large, and would be part of every future around it.
    Ok(Box::pin(atoll_federation::run(parts.config, resources, shutdown)).await?)
}

/// Runs the hub until a signal.
///
/// # Errors
/// A configuration, port, store or API server that can't be used; another hub that took the lead.
pub(crate) async fn hub(file: Option<PathBuf>) -> anyhow::Result<()> {
    telemetry::log("info,kube_client=off");
    let config = Config::read(file.as_deref())?;
    let reached = match (&config.kubeconfig, config.embedded) {
        (Some(_), Some(true)) => {
            return Err(Exit::Usage("kubeconfig and embedded: true: which API server is meant?".into()).into());
        }
        (Some(file), _) => Some(apis::by_file(file, None).await?),
        (None, Some(true)) => None,
        (None, said) => {
            let account = apis::by_account()?;
            if said == Some(false) && account.is_none() {
                let why = "embedded: false, but no kubeconfig is given and this is no pod: name the hub's API server";
                return Err(Exit::Usage(why.into()).into());
            }
            account
        }
    };
    let shutdown = signals::shutdown()?;
    match reached {
        Some(real) => over_real(&config, real.client, &shutdown).await,
        None => over_embedded(&config, &shutdown).await,
    }
}

async fn over_real(config: &Config, client: Client, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let webhook = config.listen.webhook.map(|at| bind::accept(at, Strict::Always)).transpose()?;
    crds::apply(&client).await?;
    serve(config, client, webhook, true, shutdown).await
}

async fn over_embedded(config: &Config, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let missing = || Exit::Usage("dataDir is missing: where is the hub's own store to be?".into());
    let dir = config::data_dir(config.data_dir.as_deref().ok_or_else(missing)?)?;
    let listener = bind::tcp(config.listen.api, Strict::Always)?;
    let at = listener.local_addr()?;
    let embedded = Arc::new(Embedded::over(dir.join("hub.redb")));
    embedded.open().await?;
    let advertised = Config::advertised(&config.advertise.api, at);
    let kubeconfig = embedded.kubeconfig(&format!("https://{advertised}")).await?;
    files::write_private(&dir.join("kubeconfig"), kubeconfig.as_bytes())?;
    let client = embedded.client();
    let names = files::names(&advertised, at);
    // The store closes last: whatever the hub still writes at its end is kept.
    let api_end = CancellationToken::new();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut api = Part::start("API server", &api_end, |end| async move { embedded.serve(listener, &names, end).await });
    tracing::info!(%at, kubeconfig = %dir.join("kubeconfig").display(), "API server");
    let ended = tokio::select! {
        ended = serve(config, client, None, false, shutdown) => ended,
        ended = api.ended() => return ended.context("the API server ended"),
    };
    api.end().await?;
    ended
}

/// The hub itself, once its API server is there.
async fn serve(
    config: &Config,
    client: Client,
    webhook: Option<Box<dyn Accept>>,
    leader_election: bool,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let listener = bind::accept(config.listen.hub, Strict::Always)?;
    let console = bind::accept(config.listen.console, Strict::Always)?;
    let admin_port = bind::accept(config.listen.admin, Strict::Always)?;
    let metrics = Metrics::default();
    let (started, mut up) = oneshot::channel();
    let said = atoll_federation::Config {
        leader_election,
        webhook: webhook
            .as_ref()
            .map(|w| target(&Config::advertised(&config.advertise.webhook, w.local_addr())))
            .transpose()?,
        ..settings(config, &Config::advertised(&config.advertise.hub, listener.local_addr()))
    };
    let leading = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&leading);
    let ready: admin::Check = Box::new(move || seen.load(std::sync::atomic::Ordering::Relaxed));
    let admin = Admin { metrics: metrics.clone(), checks: vec![("hub", ready)], ..Admin::default() };
    let mut admin = Part::start("admin port", shutdown, |end| admin::serve(admin_port, admin, end));
    let view = Arc::new(NoView);
    let parts = HubParts { config: said, client, listener, webhook, console: Some(console), metrics, view, started };
    let mut hub = Part::start("hub", shutdown, |end| run_hub(parts, end));
    let ended = loop {
        tokio::select! {
            ended = hub.ended() => break ended,
            Ok(_) = &mut up, if !leading.load(std::sync::atomic::Ordering::Relaxed) => {
                leading.store(true, std::sync::atomic::Ordering::Relaxed);
                tracing::info!(at = %config.listen.hub.at, "hub is up");
            }
        }
    };
    shutdown.cancel();
    let _ = admin.ended().await;
    ended
}

/// What the file says of the hub, as the hub takes it.
pub(crate) fn settings(config: &Config, advertise: &str) -> atoll_federation::Config {
    let host = config::host_name();
    let mut names: Vec<String> = config.listen.hub.at.ip().is_unspecified().then(|| host.clone()).into_iter().collect();
    // The webhook shows the same certificate.
    let webhook = config.advertise.webhook.as_deref().and_then(host_and_port);
    names.extend(webhook.map(|(host, _)| host.to_owned()));
    atoll_federation::Config {
        advertise: advertise.to_owned(),
        names,
        apex: config.apex.clone(),
        dns: config.advertise.dns.clone(),
        default_set: config.default_set.clone(),
        identity: config.site.clone().unwrap_or_else(|| format!("{host}-{}", std::process::id())),
        ..atoll_federation::Config::default()
    }
}

/// `name.namespace.svc[:port]` is a Service, everything else a URL.
fn target(advertised: &str) -> anyhow::Result<WebhookTarget> {
    let (host, port) = host_and_port(advertised).context("advertise.webhook is not host:port")?;
    let labels: Vec<&str> = host.split('.').collect();
    Ok(match labels.as_slice() {
        [name, namespace, "svc"] => WebhookTarget::Service((*namespace).to_owned(), (*name).to_owned(), port),
        _ => WebhookTarget::Url(format!("https://{advertised}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_webhook_is_called_as_the_service_that_is_advertised_or_at_a_url() {
        for (advertised, expected) in [
            ("hub.atoll-system.svc:443", WebhookTarget::Service("atoll-system".into(), "hub".into(), 443)),
            ("hub.example.com:9443", WebhookTarget::Url("https://hub.example.com:9443".into())),
            ("192.0.2.1:9443", WebhookTarget::Url("https://192.0.2.1:9443".into())),
        ] {
            assert_eq!(target(advertised).unwrap(), expected);
        }
    }
}
