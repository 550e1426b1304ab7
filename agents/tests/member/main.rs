//! An agent between a member (the embedded API server) and a hub that does as the test tells it, over real mutual TLS.

#![allow(clippy::unwrap_used)]

mod apply;
mod balancers;
mod copies;
mod hub;
mod join;
mod labels;
mod reach;
mod stub;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use atoll_agents::{AgentError, Config, Resources, Stub};
use atoll_api::copy::{Boxed, CheckJob, CheckReport, Copy, CopyJob, CopyReport, CopyState, Keys};
use atoll_api::facts::Facts;
use atoll_api::kinds::MemberDns;
use atoll_apiserver::{ApiServer, Storage};
use atoll_reach::System;
use hub::{Authority, Hub};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A copy engine that notes whose keys it got.
#[derive(Default)]
pub(crate) struct Engine {
    pub(crate) keys: std::sync::Mutex<Vec<Option<String>>>,
}

impl Copy for Engine {
    fn check<'a>(&'a self, job: &'a CheckJob, _keys: Keys) -> Boxed<'a, CheckReport> {
        Box::pin(
            async move { CheckReport { closure: format!("sha256:{}", job.images.join("+")), ..Default::default() } },
        )
    }

    fn copy<'a>(
        &'a self,
        job: &'a CopyJob,
        keys: Keys,
        progress: &'a (dyn Fn(CopyReport) + Send + Sync),
    ) -> Boxed<'a, CopyReport> {
        self.keys.lock().unwrap().push(keys.to.map(|key| key.username));
        let report = CopyReport { closure: job.closure.clone(), ..Default::default() };
        progress(CopyReport { state: CopyState::Copying, ..report.clone() });
        Box::pin(async move { CopyReport { state: CopyState::Succeeded, ..report } })
    }
}

/// A member with its agent's surroundings.
pub(crate) struct Member {
    pub(crate) server: ApiServer,
    pub(crate) engine: Arc<Engine>,
    pub(crate) dns: Option<MemberDns>,
    pub(crate) stub: Option<Stub>,
}

/// A running agent.
pub(crate) struct Agent {
    stop: CancellationToken,
    ended: JoinHandle<Result<(), AgentError>>,
}

impl Member {
    pub(crate) async fn new() -> Self {
        let config = atoll_apiserver::Config {
            namespaces: ["default", "kube-system"].map(Into::into).into(),
            ..atoll_apiserver::Config::default()
        };
        Self {
            server: ApiServer::open(config, Storage::Memory).await.unwrap(),
            engine: Arc::default(),
            dns: None,
            stub: None,
        }
    }

    pub(crate) fn client(&self) -> kube::Client {
        self.server.client()
    }

    pub(crate) fn start(&self, hub: &str, token: Option<String>) -> Agent {
        let (dns, stub) = (self.dns.clone(), self.stub.clone());
        let config = Config { hub: hub.to_owned(), token, dns, stub, ..Config::default() };
        let resources = Resources {
            client: self.client(),
            api_server: None,
            connect: Arc::new(System::default()),
            copy: Arc::clone(&self.engine) as Arc<dyn Copy>,
            metrics: prometheus::Registry::new(),
        };
        let stop = CancellationToken::new();
        let ended = tokio::spawn(atoll_agents::run(config, resources, stop.clone()));
        Agent { stop, ended }
    }

    /// Joined to a hub, with an agent that runs.
    pub(crate) async fn joined(authority: &Arc<Authority>, desired: Facts) -> (Self, Hub, Agent) {
        let (member, hub) = (Self::new().await, Hub::start(authority, 1, desired).await);
        let agent = member.start(&hub.address.to_string(), Some(authority.token("dev")));
        until(&hub.link, "the link", |link| link.0 > 0).await;
        (member, hub, agent)
    }
}

impl Agent {
    pub(crate) async fn stop(self) -> Result<(), AgentError> {
        self.stop.cancel();
        self.ended().await
    }

    pub(crate) async fn ended(self) -> Result<(), AgentError> {
        within("the agent's end", self.ended).await.unwrap()
    }
}

/// Waits until what is watched is as wanted.
pub(crate) async fn until<T>(watched: &watch::Receiver<T>, what: &str, wanted: impl FnMut(&T) -> bool) {
    let mut watched = watched.clone();
    within(what, async { watched.wait_for(wanted).await.map(drop) }).await.unwrap();
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    within(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("{what}: not within 60 s"))
}
