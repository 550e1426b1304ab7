//! One demo member: starts its servers and controllers, says where they are, breaks and heals.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use atoll_apiserver::{ApiServer, Authority, Config, Storage};
use atoll_reach::Connect;
use atoll_registry::{Credentials, backend::memory::Store};
use http::{Method, Request, header};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    bound::Bound,
    controllers::{self, Ground, Kubelet},
    dns::{self, Zone},
    error::Error,
    gate::{self, Door, Gate, Outward},
    image::Puller,
    network::{INDEX_MAX, Network},
    objects::{self, Addresses},
    registry::{self, Registry, images},
    serve::{forward, serve},
};

/// Connections to the API server's socket at once.
const API_CONNECTIONS_MAX: usize = 256;

/// What a member is to be.
#[derive(Debug, Clone)]
pub struct MemberSpec {
    /// Its name.
    pub name: String,
    /// Which of the networks in 127/8 is its own: 0 to [`INDEX_MAX`], no two alike.
    pub index: u8,
    /// How many nodes.
    pub nodes: u8,
    /// The CPU of each node, as a quantity.
    pub cpu: String,
    /// The memory of each node, as a quantity.
    pub memory: String,
    /// How many pods each node takes.
    pub pods: u16,
    /// Labels of its nodes, such as region and zone.
    pub node_labels: BTreeMap<String, String>,
    /// Images in its registry, as (repository, tag).
    pub images: Vec<(String, String)>,
    /// What its registry asks for; also put into the Secret [`objects::REGISTRY_SECRET`] of `atoll-system`.
    pub registry_credentials: Option<Credentials>,
    /// Its DNS domain.
    pub domain: String,
}

impl MemberSpec {
    /// A member of two nodes with room for a hundred pods, and `shop/web:1` in its registry.
    pub fn new(name: &str, index: u8) -> Self {
        Self {
            name: name.to_owned(),
            index,
            nodes: 2,
            cpu: "4".to_owned(),
            memory: "8Gi".to_owned(),
            pods: 50,
            node_labels: BTreeMap::new(),
            images: vec![("shop/web".to_owned(), "1".to_owned())],
            registry_credentials: None,
            domain: "cluster.local".to_owned(),
        }
    }
}

/// A running member. It ends with the token that it was started with; [`Member::closed`] waits for that.
pub struct Member {
    spec: MemberSpec,
    network: Network,
    at: Addresses,
    api: ApiServer,
    authority: Authority,
    store: Arc<Store>,
    gate: Gate,
    tasks: TaskTracker,
}

impl Member {
    /// Starts it. When this returns its servers answer; its pods come with the workloads.
    ///
    /// # Errors
    /// A bad specification, no free port, or an API server that does not open.
    pub async fn start(spec: MemberSpec, shutdown: &CancellationToken) -> Result<Self, Error> {
        let member = spec.name.clone();
        if spec.index > INDEX_MAX {
            return Err(Error::Spec { member, why: format!("index {} is above {INDEX_MAX}", spec.index) });
        }
        let (network, gate, tasks) = (Network::of(spec.index), Gate::default(), TaskTracker::new());
        let bound = Bound::bind(&member, network, &gate).await?;
        let at = bound.addresses();

        let store = Arc::new(Store::default());
        for (repository, tag) in &spec.images {
            images::seed(&store, repository, tag);
        }
        let registry = Arc::new(Registry::new(store.clone(), spec.registry_credentials.clone()));
        tasks.spawn(registry::serve(registry.clone(), bound.registry, shutdown.clone()));

        let (api, authority) = start_api(&member, network, bound.api, &tasks, shutdown).await?;
        let client = api.client();
        make_objects(&client, &spec, network, &at).await?;

        let (sender, mut zone) = watch::channel(Arc::new(Zone::default()));
        tasks.spawn(dns::udp(bound.dns_udp, zone.clone(), shutdown.clone()));
        tasks.spawn(dns::tcp(bound.dns_tcp, zone.clone(), shutdown.clone()));
        let host = at.registry.to_string();
        let puller = Puller::new(registry, &host, spec.registry_credentials.clone(), tasks.clone(), shutdown.clone())
            .map_err(|source| Error::Registry { member: member.clone(), source })?;
        let ground = Ground {
            cluster: member,
            network,
            nodes: objects::node_names(&spec),
            puller,
            gate: gate.clone(),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
        };
        let (domain, end) = (spec.domain.clone(), shutdown.clone());
        tasks.spawn(async move { controllers::run(client, Kubelet::new(ground), sender, &domain, end).await });
        // a name asked for before the controllers have looked would wrongly not be there; an end comes before that only by shutdown
        let _ = zone.wait_for(|zone| zone.is_known()).await;
        Ok(Self { spec, network, at, api, authority, store, gate, tasks })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What it was started as.
    pub fn spec(&self) -> &MemberSpec {
        &self.spec
    }

    /// A client of its API server that needs no socket, and works from inside while the member is broken.
    pub fn client(&self) -> Client {
        self.api.client()
    }

    /// Its API server.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// Where its API server is.
    pub fn api_url(&self) -> String {
        format!("https://{}", self.at.api)
    }

    /// A kubeconfig of its administrator.
    ///
    /// # Errors
    /// No certificate can be signed.
    pub fn kubeconfig(&self) -> Result<String, Error> {
        let admin = self.authority.user("admin", &["system:masters"]);
        let admin = admin.map_err(|source| Error::Api { member: self.spec.name.clone(), source })?;
        let (url, ca) = (self.api_url(), self.authority.ca_pem());
        Ok(atoll_apiserver::kubeconfig(&url, ca, &admin.cert_pem, &admin.key_pem, "admin", &self.spec.name))
    }

    /// Where its DNS is, by UDP and TCP.
    pub fn dns(&self) -> SocketAddr {
        self.at.dns
    }

    /// Where its registry is, and what that asks for.
    pub fn registry(&self) -> (String, Option<Credentials>) {
        (format!("http://{}", self.at.registry), self.spec.registry_credentials.clone())
    }

    /// What its registry holds.
    pub fn images(&self) -> &Store {
        &self.store
    }

    /// Its networks.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The way from inside the member to elsewhere, for its agent: cut while the member is broken.
    pub fn connect(&self) -> Arc<dyn Connect> {
        Arc::new(Outward::new(self.gate.clone()))
    }

    /// Cuts it off: nothing of it answers any more, and its agent's connections stand still.
    pub fn break_it(&self) {
        self.gate.set_shut(true);
    }

    /// Ends the cut: everything answers again where it was.
    pub fn heal(&self) {
        self.gate.set_shut(false);
    }

    /// Whether it is cut off, with each change.
    pub fn broken(&self) -> watch::Receiver<bool> {
        self.gate.watch()
    }

    /// Waits until all of it has ended, after the token was cancelled.
    pub async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Opens the API server and serves it: on a listener that only this process knows, to which the gated door passes connections.
async fn start_api(
    member: &str,
    network: Network,
    door: Door,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(ApiServer, Authority), Error> {
    let failed = |source| Error::Api { member: member.to_owned(), source };
    let at = door.address();
    let port = |source| Error::Port { member: member.to_owned(), what: "API server", from: at, source };
    let config = Config { service_cidr: network.service_cidr(), ..Config::default() };
    let api = ApiServer::open(config, Storage::Memory).await.map_err(failed)?;
    let authority = Authority::new(&format!("atoll-demo-{member}")).map_err(failed)?;
    let tls = authority.tls(&[at.ip().to_string().as_str(), "kubernetes", "localhost"]).map_err(failed)?;
    let private = gate::private_listener().await.map_err(port)?;
    let inner = private.local_addr().map_err(port)?;
    let (server, end) = (api.clone(), shutdown.clone());
    tasks.spawn(async move {
        if let Err(error) = server.serve(private, tls, end).await {
            tracing::error!(%error, "a demo member's API server ended");
        }
    });
    let end = shutdown.clone();
    tasks.spawn(async move {
        let one = |client, _| forward(client, inner, end.clone());
        serve(door, API_CONNECTIONS_MAX, &end, one).await;
    });
    Ok((api, authority))
}

/// Makes the objects that every member has, each with its status.
async fn make_objects(client: &Client, spec: &MemberSpec, network: Network, at: &Addresses) -> Result<(), Error> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for (path, object) in objects::all(spec, network, at, &now) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let failed = |source| {
            let object = format!("{} `{name}`", object["kind"].as_str().unwrap_or_default());
            Error::Object { member: spec.name.clone(), object, source: Box::new(source) }
        };
        write(client, Method::POST, &path, "application/json", &object).await.map_err(failed)?;
        if object.get("status").is_some() {
            let path = format!("{path}/{name}/status");
            let patch = json!({"status": object["status"]});
            write(client, Method::PATCH, &path, "application/merge-patch+json", &patch).await.map_err(failed)?;
        }
    }
    Ok(())
}

async fn write(client: &Client, method: Method, path: &str, kind: &str, body: &Value) -> Result<Value, kube::Error> {
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, kind);
    client.request(request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)?).await
}
