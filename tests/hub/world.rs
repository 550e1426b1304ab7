//! A hub, its members and their agents, as tests want them: started, cut, healed, killed, started again on the same store.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use atoll_agents::{AgentError, Credentials};
use atoll_api::copy::RegistryEndpoint;
use atoll_api::kinds::{Cluster, Condition, REQUESTER, VOTER, crds, standard_crds};
use atoll_api::topology::Topology;
use atoll_apiserver::{ApiServer, Stamp, Storage};
use atoll_demo::{Member, MemberSpec};
use atoll_federation::tokens::{Created, TokenRequest, create_token};
use atoll_federation::{Answer, Config, DataPlaneView, Hub, PushMember, Resources, StartPush};
use atoll_reach::{Connect, Keepalive, Listen as _, RelayTable, System};
use atoll_registry::{Engine, Limits};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(60);
/// Members take networks from here on, away from those of an `atoll up` that may run beside.
static NEXT_INDEX: AtomicU8 = AtomicU8::new(0);

/// A hub and what it stands on.
pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) config: Config,
    pub(crate) running: Option<Running>,
    /// Ends members.
    pub(crate) shutdown: CancellationToken,
}

/// A hub that runs.
pub(crate) struct Running {
    pub(crate) hub: Hub,
    pub(crate) console: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), atoll_federation::Error>>,
}

/// An agent that runs.
pub(crate) struct Agent {
    stop: CancellationToken,
    ended: JoinHandle<Result<(), AgentError>>,
}

impl World {
    /// A hub that asks for two beats a second.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = ApiServer::open(api_config(), Storage::Memory).await.unwrap();
        apply_crds(&server.client()).await;
        let mut config = Config {
            loopback_members: true,
            heartbeat: Duration::from_millis(500),
            settle: Duration::from_secs(5),
            advertise: "127.0.0.1:0".into(),
            ..Config::default()
        };
        change(&mut config);
        let mut world = Self { server, config, running: None, shutdown: CancellationToken::new() };
        world.run_hub().await;
        world
    }

    /// Starts the hub on its store, on the port that it had.
    pub(crate) async fn run_hub(&mut self) {
        let at: SocketAddr = self.config.advertise.parse().unwrap();
        let listener =
            eventually("the hub's port is free", async || System::default().tcp(at).await.map_err(said)).await;
        self.config.advertise = listener.local_addr().to_string();
        let console = System::default().tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (started, up) = oneshot::channel();
        let at = console.local_addr();
        let resources = Resources {
            client: self.server.client(),
            listener,
            webhook: None,
            console: Some(console),
            connect: Arc::new(System::default()),
            relays: RelayTable::new(Keepalive::default()),
            metrics: prometheus::Registry::new(),
            push: Arc::new(PushHere),
            view: Arc::new(View),
            started: Some(started),
        };
        let stop = CancellationToken::new();
        let ended = tokio::spawn(atoll_federation::run(self.config.clone(), resources, stop.clone()));
        let hub = within("the hub's start", up).await.unwrap();
        self.running = Some(Running { hub, console: at, stop, ended });
    }

    /// Ends the hub.
    pub(crate) async fn stop_hub(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.cancel();
        within("the hub's end", running.ended).await.unwrap().unwrap();
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.running.as_ref().unwrap().hub
    }

    /// The API as the administrator.
    pub(crate) fn client(&self) -> Client {
        self.server.client()
    }

    pub(crate) fn clusters(&self) -> Api<Cluster> {
        Api::all(self.client())
    }

    /// A token for `name`.
    pub(crate) async fn token(&self, name: &str) -> Created {
        create_token(&self.client(), &TokenRequest::new(name.parse().unwrap())).await.unwrap()
    }

    /// A demo member that has not joined.
    pub(crate) async fn member(&self, name: &str, change: impl FnOnce(&mut MemberSpec)) -> Arc<Member> {
        let index = 25 + NEXT_INDEX.fetch_add(1, Ordering::Relaxed) % 25;
        let mut spec = MemberSpec::new(name, index);
        change(&mut spec);
        Arc::new(Member::start(spec, &self.shutdown).await.unwrap())
    }

    /// A demo member whose agent has joined and is Ready.
    pub(crate) async fn joined(&self, name: &str, change: impl FnOnce(&mut MemberSpec)) -> (Arc<Member>, Agent) {
        let member = self.member(name, change).await;
        let token = self.token(name).await.token.to_string();
        let agent = self.agent(&member, Some(token));
        self.condition(name, "Ready", "True").await;
        (member, agent)
    }

    /// Starts the agent of `member`; the way out of the member is the member's own, so that a cut cuts it too.
    pub(crate) fn agent(&self, member: &Member, token: Option<String>) -> Agent {
        self.agent_over(member.client(), member.connect(), token)
    }

    pub(crate) fn agent_over(&self, client: Client, connect: Arc<dyn Connect>, token: Option<String>) -> Agent {
        let config = atoll_agents::Config { hub: self.config.advertise.clone(), token, ..Default::default() };
        let stop = CancellationToken::new();
        let resources = agent_resources(client, connect, &stop);
        let ended = tokio::spawn(atoll_agents::run(config, resources, stop.clone()));
        Agent { stop, ended }
    }

    /// What an agent of a plain member gets.
    pub(crate) fn resources(&self, client: Client) -> atoll_agents::Resources {
        agent_resources(client, Arc::new(System::default()), &self.shutdown)
    }

    /// A namespace in which the groups `developers` and `approvers` may do everything with our kinds.
    pub(crate) async fn people(&self, namespace: &str) {
        let rule = json!({"apiGroups": ["atoll.dev"], "resources": ["*"], "verbs": ["*"]});
        let rbac = "rbac.authorization.k8s.io";
        self.apply(json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": "people", "namespace": namespace}, "rules": [rule]}))
            .await;
        let subject = |group: &str| json!({"apiGroup": rbac, "kind": "Group", "name": group});
        self.apply(json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": "people", "namespace": namespace},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "people"}, "subjects": [subject("developers"), subject("approvers")]}))
            .await;
    }

    /// Waits for a condition of a Cluster to have a status.
    pub(crate) async fn condition(&self, cluster: &str, kind: &str, status: &str) -> Condition {
        let clusters = self.clusters();
        eventually(&format!("{cluster}: {kind}={status}"), async || {
            let found = clusters.get_opt(cluster).await.unwrap().and_then(|c| c.status).unwrap_or_default();
            let condition = found.conditions.iter().find(|c| c.type_ == kind && c.status == status);
            condition.cloned().ok_or_else(|| format!("{:#?}", found.conditions))
        })
        .await
    }

    /// Waits until the published topology is as wanted.
    pub(crate) async fn topology<T>(&self, what: &str, look: impl Fn(&Topology) -> Option<T>) -> T {
        let mut topology = self.hub().topology.clone();
        let found = async {
            loop {
                let now = topology.borrow_and_update().clone();
                if let Some(found) = now.and_then(|p| look(&p.topology)) {
                    return found;
                }
                topology.changed().await.unwrap();
            }
        };
        within(what, found).await
    }

    /// Writes an object by server-side apply, with the namespace made where it is missing.
    pub(crate) async fn apply(&self, object: Value) {
        apply(&self.client(), object).await;
    }

    /// Ends everything.
    pub(crate) async fn end(mut self, agents: impl IntoIterator<Item = Agent>) {
        for agent in agents {
            agent.stop().await.unwrap();
        }
        if self.running.is_some() {
            self.stop_hub().await;
        }
        self.shutdown.cancel();
        self.server.close().await;
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

/// The embedded API server as a hub's: it stamps.
pub(crate) fn api_config() -> atoll_apiserver::Config {
    let stamp = |resource: &str, annotation: &str| Stamp {
        group: "atoll.dev".into(),
        resource: resource.into(),
        annotation: annotation.into(),
    };
    atoll_apiserver::Config {
        stamps: vec![stamp("replicationrequests", REQUESTER), stamp("replicationapprovals", VOTER)],
        ..atoll_apiserver::Config::default()
    }
}

pub(crate) async fn apply_crds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in crds().into_iter().chain(standard_crds()) {
        api.create(&PostParams::default(), &crd).await.unwrap();
    }
}

fn agent_resources(client: Client, connect: Arc<dyn Connect>, stop: &CancellationToken) -> atoll_agents::Resources {
    let dial = Arc::new(|_: &RegistryEndpoint| Arc::new(System::default()) as Arc<dyn Connect>);
    atoll_agents::Resources {
        client,
        api_server: None,
        connect,
        copy: Arc::new(Engine::new(dial, Limits::default(), stop.clone())),
        metrics: prometheus::Registry::new(),
    }
}

/// What the console is told of DNS and gateway.
struct View;

#[async_trait]
impl DataPlaneView for View {
    fn ports(&self) -> Vec<(String, String)> {
        vec![
            ("DNS (UDP, TCP)".into(), "127.0.0.1:5353".into()),
            ("Gateway HTTP".into(), "http://127.0.0.1:8080".into()),
        ]
    }

    async fn answers(&self) -> Vec<Answer> {
        let answer = |from: &str, asked: &str, answer: &str, ok| Answer {
            from: from.into(),
            asked: asked.into(),
            answer: answer.into(),
            ok,
        };
        vec![
            answer("DNS", "web.shop.svc.atoll.internal A", "127.125.1.7, 127.125.2.3", true),
            answer("gateway", "http://shop.example.com/", "503 no ready backend", false),
        ]
    }
}

/// Agents inside this process, for Push members.
struct PushHere;

#[async_trait]
impl StartPush for PushHere {
    async fn run(&self, member: PushMember, shutdown: CancellationToken) -> Result<(), String> {
        let config = kube::config::Kubeconfig::from_yaml(&member.kubeconfig).map_err(said)?;
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.map_err(said)?;
        let client = Client::try_from(config).map_err(said)?;
        let credentials = Credentials {
            cluster: member.name,
            hub: member.hub,
            hub_id: member.hub_id,
            chain_pem: member.chain_pem,
            key_pem: member.key_pem,
            ca_pem: member.ca_pem,
            epoch: 0,
            sites: Vec::new(),
        };
        let resources = agent_resources(client, Arc::new(System::default()), &shutdown);
        let config = atoll_agents::Config { relay: false, ..Default::default() };
        atoll_agents::push(credentials, config, resources, shutdown).await.map_err(said)
    }
}

/// Writes an object by server-side apply, with the namespace made where it is missing.
pub(crate) async fn apply(client: &Client, object: Value) {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = kube::core::GroupVersionKind::gvk(group, version, kind);
    let (resource, _) = kube::discovery::pinned_kind(client, &kind).await.unwrap();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let api: Api<kube::core::DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => {
            make_namespace(client, namespace).await;
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        None => Api::all_with(client.clone(), &resource),
    };
    api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap();
}

pub(crate) async fn make_namespace(client: &Client, name: &str) {
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    api.patch(name, &PatchParams::apply("test"), &Patch::Apply(&body)).await.unwrap();
}

pub(crate) fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Asks again until the answer is `Ok`; says what it last was if that takes too long.
pub(crate) async fn eventually<T, E: Debug>(what: &str, ask: impl AsyncFn() -> Result<T, E>) -> T {
    let until = Instant::now() + LONG;
    loop {
        match ask().await {
            Ok(done) => return done,
            Err(last) if Instant::now() > until => panic!("{what}: not within {} s: {last:?}", LONG.as_secs()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Asks all the time for so long, and never hears no.
pub(crate) async fn throughout<E: Debug>(what: &str, time: Duration, ask: impl AsyncFn() -> Result<(), E>) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        ask().await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what}: not within {} s", LONG.as_secs()))
}
