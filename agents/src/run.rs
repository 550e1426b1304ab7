//! The agent as a whole: joins if it must, then keeps everything going until it is told to end.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::facts::Facts;
use atoll_reach::{Revocations, TlsIdentity};
use prometheus::{IntCounterVec, IntGauge, Opts};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::allow::AllowList;
use crate::apply::Applier;
use crate::balancers::Balancers;
use crate::config::{Config, Resources};
use crate::copies::Copies;
use crate::credentials::{Credentials, Shared};
use crate::desired::Word;
use crate::enrol::enrol;
use crate::error::AgentError;
use crate::health::Health;
use crate::link::Link;
use crate::observe::Seen;
use crate::relay::Relays;
use crate::stub::Stubs;
use crate::{health, names, observe, rotate};

const ENROL_AGAIN: Duration = Duration::from_secs(3);

/// Runs the agent of one member until `shutdown`.
///
/// # Errors
/// Only what no waiting cures: no credentials and no good token, broken credentials, metrics registered twice. Hub or
/// member out of reach are waited for.
pub async fn run(config: Config, resources: Resources, shutdown: CancellationToken) -> Result<(), AgentError> {
    let Some(credentials) = join(&config, &resources, &shutdown).await? else { return Ok(()) };
    // What the agent dials is checked by role and CA; whom the hub revoked it need not know.
    let tls = TlsIdentity::new(credentials.identity()?, Revocations::none())?;
    let metrics = Metrics::register(&resources.metrics, credentials.cluster.as_str())?;
    let shared = Shared::new(credentials, resources.client.clone());
    let (facts, facts_rx) = watch::channel(Arc::new(Facts::default()));
    let (status, status_rx) = watch::channel(Arc::new(Facts::default()));
    let (dns, dns_rx) = watch::channel(config.dns.clone());
    let (health_tx, health_rx) = watch::channel(Health::default());
    let (rotated, rotated_rx) = watch::channel(0);
    let (word, word_rx) = watch::channel(Word::default());
    let seen = Arc::new(Seen::default());
    let (client, connect) = (resources.client, resources.connect);

    let mut tasks = JoinSet::new();
    let observed = Arc::clone(&seen);
    tasks.spawn(observe::run(client.clone(), config.clone(), observed, facts, dns, word_rx.clone(), shutdown.clone()));
    tasks.spawn(health::run(client.clone(), Arc::clone(&connect), dns_rx, health_tx, shutdown.clone()));
    tasks.spawn(rotate::run(shared.clone(), tls.clone(), Arc::clone(&connect), rotated, shutdown.clone()));
    let balancers = Balancers::new(client.clone(), Arc::clone(&seen));
    tasks.spawn(balancers.run(word_rx.clone(), shutdown.clone()));
    let applier = Applier::new(client.clone(), config.opt_in, seen, status.clone(), metrics.applies);
    tasks.spawn(applier.run(word_rx.clone(), shutdown.clone()));
    let stubs = Stubs { client: client.clone(), stub: config.stub.clone(), status: status.clone() };
    tasks.spawn(stubs.run(word_rx.clone(), shutdown.clone()));
    if config.names {
        tasks.spawn(names::run(shared.clone(), tls.clone(), Arc::clone(&connect), client.clone(), shutdown.clone()));
    }
    let copies = Copies { client, copy: resources.copy, status };
    tasks.spawn(copies.run(word_rx.clone(), shutdown.clone()));
    if config.relay {
        let allow = Arc::new(AllowList::new(facts_rx.clone(), resources.api_server));
        let relays = Relays {
            shared: shared.clone(),
            tls: tls.clone(),
            connect: Arc::clone(&connect),
            allow,
            live: metrics.relays,
        };
        tasks.spawn(relays.run(word_rx, rotated_rx.clone(), shutdown.clone()));
    }
    let link = Link {
        shared,
        tls,
        connect,
        version: config.version,
        facts: facts_rx,
        status: status_rx,
        health: health_rx,
        rotated: rotated_rx,
        word,
        up: metrics.link,
    };
    tasks.spawn(link.run(shutdown.clone()));
    while let Some(ended) = tasks.join_next().await {
        if let Err(broken) = ended {
            // A task that panicked is a bug of ours: better no agent than half of one.
            shutdown.cancel();
            tracing::error!(%broken, "a task of the agent broke");
        }
    }
    Ok(())
}

/// Waits for hub and member as long as that may help. Nothing if told to end meanwhile.
async fn join(
    config: &Config,
    resources: &Resources,
    shutdown: &CancellationToken,
) -> Result<Option<Credentials>, AgentError> {
    loop {
        let tried = tokio::select! {
            tried = enrol(config, resources) => tried,
            () = shutdown.cancelled() => return Ok(None),
        };
        match tried {
            Ok(credentials) => return Ok(Some(credentials)),
            Err(error) if error.is_transient() => tracing::warn!(%error, "can't join yet, trying again"),
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(ENROL_AGAIN) => {}
            () = shutdown.cancelled() => return Ok(None),
        }
    }
}

struct Metrics {
    link: IntGauge,
    relays: IntGauge,
    applies: IntCounterVec,
}

impl Metrics {
    /// Several agents may share a registry (Push members, the demo): the cluster tells them apart.
    fn register(registry: &prometheus::Registry, cluster: &str) -> Result<Self, AgentError> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("cluster", cluster);
        let link = IntGauge::with_opts(opts("atoll_agent_link_up", "1 while the link to the hub is open"))?;
        let relays = IntGauge::with_opts(opts("atoll_agent_relays", "Relay connections that are open"))?;
        let applies = IntCounterVec::new(opts("atoll_agent_applies_total", "Bundles applied, by result"), &["result"])?;
        registry.register(Box::new(link.clone()))?;
        registry.register(Box::new(relays.clone()))?;
        registry.register(Box::new(applies.clone()))?;
        Ok(Self { link, relays, applies })
    }
}
