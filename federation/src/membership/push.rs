//! Members that the hub dials (Push): the same agent, run inside this process. The root starts it; the hub says which.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::kinds::{SYSTEM_NAMESPACE, SyncMode};
use atoll_api::names::ClusterName;
use atoll_reach::Role;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::{Authority, LEAF};
use crate::objects::Objects;
use crate::pulse::Pulse;

/// From one start of an agent to the next, at least.
const AGAIN: Duration = Duration::from_secs(10);

/// What an in-process agent needs.
#[derive(Clone)]
pub struct PushMember {
    /// Its name.
    pub name: ClusterName,
    /// host:port of the hub's link port.
    pub hub: String,
    /// The hub's id.
    pub hub_id: String,
    /// The kubeconfig that its Secret holds.
    pub kubeconfig: String,
    /// Certificate chain, leaf first.
    pub chain_pem: String,
    /// Its key.
    pub key_pem: String,
    /// The hub's CA.
    pub ca_pem: String,
}

/// Starts an agent inside this process.
#[async_trait]
pub trait StartPush: Send + Sync {
    /// Runs the agent of `member` until `shutdown`.
    ///
    /// # Errors
    /// Why it does not run, for people; it is tried again after a while.
    async fn run(&self, member: PushMember, shutdown: CancellationToken) -> Result<(), String>;
}

/// The agents that run in this process.
pub(crate) struct Pushes {
    pub(crate) client: Client,
    pub(crate) authority: Arc<Authority>,
    pub(crate) start: Arc<dyn StartPush>,
    /// host:port of the hub's link port.
    pub(crate) hub: String,
    pub(crate) objects: Arc<Objects>,
    pub(crate) errors: Arc<Mutex<BTreeMap<ClusterName, String>>>,
    pub(crate) tasks: TaskTracker,
}

impl Pushes {
    /// Keeps one agent running for each Push member, and starts it anew when its Secret changes.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut running: BTreeMap<ClusterName, (Source, CancellationToken)> = BTreeMap::new();
        let mut pulse = Pulse::new(vec![self.objects.changes()], Duration::from_secs(60));
        loop {
            let wanted = self.wanted();
            running.retain(|name, (source, token)| {
                let keep = wanted.get(name) == Some(source);
                if !keep {
                    token.cancel();
                    self.say(name, None);
                }
                keep
            });
            for (name, source) in wanted {
                running.entry(name).or_insert_with_key(|name| {
                    let token = shutdown.child_token();
                    self.spawn(name.clone(), source.secret.clone(), token.clone());
                    (source, token)
                });
            }
            tokio::select! {
                () = pulse.next() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn wanted(&self) -> BTreeMap<ClusterName, Source> {
        let clusters = self.objects.clusters.state();
        let push = clusters.iter().filter(|c| c.spec.sync.mode == SyncMode::Push);
        push.filter_map(|c| {
            let name: ClusterName = c.metadata.name.as_ref()?.parse().ok()?;
            let Some(secret) = &c.spec.sync.kubeconfig_ref else {
                self.say(&name, Some("sync.kubeconfigRef is missing: name a Secret in atoll-system".into()));
                return None;
            };
            let held = self.objects.secrets.get(&ObjectRef::new(&secret.name).within(SYSTEM_NAMESPACE));
            let version = held.and_then(|held| held.metadata.resource_version.clone());
            Some((name, Source { secret: secret.name.clone(), version }))
        })
        .collect()
    }

    fn spawn(&self, name: ClusterName, secret: String, token: CancellationToken) {
        let attempt = Attempt {
            client: self.client.clone(),
            authority: Arc::clone(&self.authority),
            start: Arc::clone(&self.start),
            hub: self.hub.clone(),
            name,
            secret,
            token: token.clone(),
        };
        let errors = Arc::clone(&self.errors);
        self.tasks.spawn(async move {
            token.run_until_cancelled(attempt.repeat(&errors)).await;
        });
    }

    fn say(&self, name: &ClusterName, error: Option<String>) {
        say(&self.errors, name, error);
    }
}

fn say(errors: &Mutex<BTreeMap<ClusterName, String>>, name: &ClusterName, error: Option<String>) {
    let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
    match error {
        Some(error) => drop(errors.insert(name.clone(), error)),
        None => drop(errors.remove(name)),
    }
}

/// Where a member's kubeconfig is, as it is now.
#[derive(Clone, PartialEq)]
struct Source {
    secret: String,
    version: Option<String>,
}

/// What one start after the other needs.
struct Attempt {
    client: Client,
    authority: Arc<Authority>,
    start: Arc<dyn StartPush>,
    hub: String,
    name: ClusterName,
    secret: String,
    token: CancellationToken,
}

impl Attempt {
    /// Starts the agent whenever it has ended, at most once in [`AGAIN`].
    async fn repeat(&self, errors: &Mutex<BTreeMap<ClusterName, String>>) {
        loop {
            let started = Instant::now();
            let error = self.run().await.err();
            if let Some(error) = &error {
                tracing::warn!(cluster = %self.name, error, "agent inside the hub ended");
            }
            say(errors, &self.name, error);
            // One that ran for long, until its certificate was half used up, is missed by nobody.
            tokio::time::sleep_until(started + AGAIN).await;
        }
    }

    async fn run(&self) -> Result<(), String> {
        let secret = format!("secret {SYSTEM_NAMESPACE}/{}", self.secret);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let held = secrets.get_opt(&self.secret).await.map_err(|e| format!("{secret}: {e}"))?;
        let held = held.ok_or_else(|| format!("{secret}: there is none"))?;
        let kubeconfig = held.data.and_then(|mut d| d.remove("kubeconfig")).and_then(|k| String::from_utf8(k.0).ok());
        let kubeconfig = kubeconfig.ok_or_else(|| format!("{secret}: key `kubeconfig` is missing or is no text"))?;
        let role = Role::Cluster(self.name.to_string());
        let issued = self.authority.issue(&role, &[], Timestamp::now()).map_err(|e| e.to_string())?;
        let member = PushMember {
            name: self.name.clone(),
            hub: self.hub.clone(),
            hub_id: self.authority.hub_id().to_owned(),
            kubeconfig,
            chain_pem: issued.chain_pem,
            key_pem: issued.key_pem.unwrap_or_default(),
            ca_pem: self.authority.ca_pem().to_owned(),
        };
        // Started anew at half of the certificate's life.
        let half = Duration::try_from(LEAF / 2).unwrap_or(AGAIN);
        match tokio::time::timeout(half, self.start.run(member, self.token.child_token())).await {
            Ok(ended) => ended.map_err(|why| format!("{secret}: {why}")),
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;

    /// Runs until it is stopped, and tells of each start.
    struct Agents(mpsc::Sender<Instant>);

    #[async_trait]
    impl StartPush for Agents {
        async fn run(&self, member: PushMember, _: CancellationToken) -> Result<(), String> {
            assert_eq!(member.kubeconfig, "text");
            self.0.send(Instant::now()).await.unwrap();
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_whose_certificate_is_half_used_up_is_started_anew_without_a_pause() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "eu", "namespace": SYSTEM_NAMESPACE},
            "data": {"kubeconfig": "dGV4dA=="}});
        let api = tower::service_fn(move |_: Request<Body>| {
            let body = Body::from(secret.to_string().into_bytes());
            async move { Ok::<_, std::io::Error>(Response::new(body)) }
        });
        let (starts, mut started) = mpsc::channel(8);
        let attempt = Attempt {
            client: Client::new(api, "default"),
            authority: Arc::new(Authority::generate("h1", Timestamp::now()).unwrap().0),
            start: Arc::new(Agents(starts)),
            hub: "hub:7443".into(),
            name: "eu".parse().unwrap(),
            secret: "eu".into(),
            token: CancellationToken::new(),
        };
        let errors = Mutex::new(BTreeMap::new());
        let seen = async {
            let first = started.recv().await.unwrap();
            started.recv().await.unwrap() - first
        };
        tokio::select! {
            () = attempt.repeat(&errors) => unreachable!("goes on for ever"),
            between = seen => {
                let half = Duration::try_from(LEAF / 2).unwrap();
                assert!(between >= half && between < half + Duration::from_secs(1), "{between:?}");
            }
        }
        assert!(errors.lock().unwrap().is_empty());
    }
}
