//! `atoll agent`, and `atoll join --foreground`: the agent of one member, beside it or as a pod in it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use atoll_agents::{AgentError, Resources};
use atoll_api::token::JoinToken;
use atoll_reach::{Connect, System};

use tokio_util::sync::CancellationToken;

use super::node::NodeParts;
use super::{Part, apis, copies};
use crate::admin::{self, Admin, Slot};
use crate::bind::{self, Strict};
use crate::config::Config;
use crate::error::Exit;
use crate::{signals, telemetry};

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

/// Runs a member's agent until a signal.
///
/// # Errors
/// [`Exit::Usage`] without a member or token, [`Exit::Refused`] when the hub does not take the token.
pub(crate) async fn agent(options: AgentOptions) -> anyhow::Result<()> {
    telemetry::log("info,kube_client=off");
    let config = Config::read(options.config.as_deref())?;
    let token = match (options.token, &config.agent.token_file) {
        (Some(token), _) => Some(token),
        (None, Some(file)) => read_token(file)?,
        (None, None) => None,
    };
    check_name(&config, token.as_deref())?;
    let member = member(options.kubeconfig, options.context.as_deref()).await?;
    let shutdown = signals::shutdown()?;
    let (metrics, slot) = (telemetry::Metrics::default(), Slot::<atoll_dns::Server>::default());
    let registry = metrics.of("agent");
    let node = config.agent.dns.clone();
    let alone = node.as_ref().is_some_and(|node| node.alone);
    // `atoll join` beside a laptop's federation must not fight with it for a port that nobody asked for.
    let mut admin = None;
    if options.config.is_some() {
        let listener = bind::accept(config.listen.admin, Strict::Always)?;
        let mut checks: Vec<(&'static str, admin::Check)> = Vec::new();
        if !alone {
            let registry = registry.clone();
            checks.push(("link to the hub", Box::new(move || is_linked(&registry))));
        }
        let mut dns = None;
        if node.is_some() {
            let seen = Arc::clone(&slot);
            checks.push(("dns", Box::new(move || seen.load().as_ref().is_some_and(|server| server.is_ready()))));
            dns = Some(Arc::clone(&slot));
        }
        let told = Admin { metrics: metrics.clone(), checks, dns, ..Admin::default() };
        admin = Some(Part::start("admin port", &shutdown, |end| admin::serve(listener, told, end)));
    }
    let hub = options.hub.or_else(|| config.hub.clone());
    let naming = async {
        let Some(node) = &node else { return Ok(()) };
        let parts = NodeParts { hub: hub.clone(), client: member.client.clone(), metrics, slot };
        let ended = super::node::node(&config, node, parts, shutdown.clone()).await;
        shutdown.cancel();
        ended
    };
    let linking = async {
        if alone {
            return Ok(());
        }
        let ended = link(&config, (hub.clone(), token), &member, registry, &shutdown).await;
        shutdown.cancel();
        ended
    };
    let (named, linked) = tokio::join!(naming, linking);
    shutdown.cancel();
    let closed = match admin {
        Some(admin) => admin.end().await,
        None => Ok(()),
    };
    linked.and(named).and(closed)
}

/// The agent itself: joins, and does what the hub asks.
async fn link(
    config: &Config,
    (hub, token): (Option<String>, Option<String>),
    member: &apis::Reached,
    registry: prometheus::Registry,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let connect: Arc<dyn Connect> = Arc::new(System::default());
    let copy = copies::engine(&connect, shutdown);
    let resources = Resources {
        client: member.client.clone(),
        api_server: member.server.clone(),
        connect,
        copy: copy.clone(),
        metrics: registry,
    };
    let said = atoll_agents::Config {
        hub: hub.unwrap_or_default(),
        token,
        names: config.agent.node_dns || config.agent.dns.is_some(),
        stub: config.agent.stub.as_ref().map(super::stub::stub).transpose()?,
        ..atoll_agents::Config::default()
    };
    let ended = atoll_agents::run(said, resources, shutdown.clone()).await;
    shutdown.cancel();
    copy.closed().await;
    ended.map_err(explain)
}

/// Whether the agent counts its link as open.
fn is_linked(registry: &prometheus::Registry) -> bool {
    let families = registry.gather();
    let link = families.iter().find(|family| family.name() == "atoll_agent_link_up");
    link.is_some_and(|family| family.get_metric().iter().any(|metric| metric.get_gauge().get_value() > 0.0))
}

/// The member's API: as named, else by `KUBECONFIG`, else the pod's account.
async fn member(kubeconfig: Option<PathBuf>, context: Option<&str>) -> anyhow::Result<apis::Reached> {
    if let Some(file) = kubeconfig {
        return apis::by_file(&file, context).await;
    }
    if let Some(found) = apis::by_environment(context).await? {
        return Ok(found);
    }
    let why = "which member? name its kubeconfig with --kubeconfig or KUBECONFIG (a pod needs neither)";
    apis::by_account()?.ok_or_else(|| Exit::Usage(why.into()).into())
}

/// The token in a file. A file that is not there is no token: credentials may be stored in the member already.
fn read_token(file: &std::path::Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|t| !t.is_empty())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| Exit::Usage(format!("agent.tokenFile {}", file.display()))),
    }
}

/// A token for another member than the file says is a mix-up that is better found before anything is sent.
fn check_name(config: &Config, token: Option<&str>) -> anyhow::Result<()> {
    let (Some(cluster), Some(token)) = (&config.agent.cluster, token) else { return Ok(()) };
    let token: JoinToken = token.parse().map_err(|e| Exit::Usage(format!("{e}")))?;
    if token.cluster != *cluster {
        let why = format!("agent.cluster is `{cluster}`, but the token is for `{}`", token.cluster);
        return Err(Exit::Usage(why).into());
    }
    Ok(())
}

fn explain(error: AgentError) -> anyhow::Error {
    let exit = match &error {
        AgentError::NoToken | AgentError::NoHub | AgentError::BadHub { .. } | AgentError::Token(_) => {
            Exit::Usage(error.to_string())
        }
        AgentError::Refused { .. } | AgentError::OtherName { .. } | AgentError::Stranger { .. } => {
            Exit::Refused(error.to_string())
        }
        AgentError::Unreachable { .. } | AgentError::Member { .. } => Exit::Unreachable(error.to_string()),
        _ => Exit::Failed(error.to_string()),
    };
    exit.into()
}
