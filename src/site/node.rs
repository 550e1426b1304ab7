//! What a node-local DNS has of a site: it follows the topology with a certificate that may do nothing else, and reports nothing.
//!
//! In: the member's API with the Secret that its agent fills, the hub's address, a directory. Out: topology and dialer. Its own member is
//! always reached directly, since it is in it; of the others the prober finds out. It opens no relay port: agents would have to keep a
//! connection to every node.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use atoll_api::kinds::{Reach, SYSTEM_NAMESPACE};
use atoll_api::names::ClusterName;
use atoll_api::topology::{ClusterFacts, Topology};
use atoll_reach::{Connect, Dialer, RelayTable, Revocations, Role, Route, Routes, probe_members};
use atoll_wire::follow::{Follow, Snapshot, follow};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::certificate::{Current, Keeper, Whose};
use super::hub::Way;

/// What it is given.
pub(crate) struct Node {
    /// The member's API.
    pub(crate) client: Client,
    /// host:port of the hub; absent: what the agent's Secret says.
    pub(crate) hub: Option<String>,
    /// The member's name; absent: the certificate's.
    pub(crate) cluster: Option<ClusterName>,
    /// For certificate and topology.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) connect: Arc<dyn Connect>,
}

/// What it gets.
pub(crate) struct Followed {
    pub(crate) cluster: ClusterName,
    pub(crate) topology: watch::Receiver<Snapshot>,
    pub(crate) dialer: Dialer,
}

/// Starts it in `tasks`; `None` when told to end before the member's name is known.
///
/// # Errors
/// The certificate is another member's than the file says.
pub(crate) async fn follow_only(
    node: Node,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Followed>> {
    let keeper = Keeper::new(Whose::Names, node.client.clone(), node.dir.clone(), Revocations::none());
    let (keeper, mut identity, _) = keeper.load().await;
    let hub_id = identity.borrow().as_ref().map(|tls| tls.bearer().hub);
    tasks.spawn(keeper.run(shutdown.clone()));
    let named = async {
        Ok(match node.cluster {
            Some(name) => name,
            None => name_of(&mut identity).await?,
        })
    };
    let Some(cluster) = shutdown.run_until_cancelled(named).await else { return Ok(None) };
    let cluster: ClusterName = cluster.map_err(|e: anyhow::Error| e)?;
    tasks.spawn(check(identity.clone(), cluster.clone(), shutdown.clone()));

    let (connect, client, hub) = (Arc::clone(&node.connect), node.client, node.hub);
    let dial = move || {
        let (connect, identity, client, hub) = (Arc::clone(&connect), identity.clone(), client.clone(), hub.clone());
        async move {
            let at = match hub {
                Some(at) => at,
                None => hub_of(client).await?,
            };
            Way { at, connect, identity }.channel().await
        }
    };
    let (topology, _, following) = follow(Follow { hub_id, dir: node.dir }, dial, None, shutdown.clone()).await;
    tasks.spawn(following);
    let routes = Routes::default();
    routes.set([(cluster.to_string(), Route::Direct)].into());
    let own = cluster.clone();
    let of = move |snapshot: &Snapshot| Some(Arc::new(near(&snapshot.topology, &own)));
    tasks.spawn(probe_members(Arc::clone(&node.connect), topology.clone(), of, routes.clone(), shutdown.clone()));
    Ok(Some(Followed { cluster, topology, dialer: Dialer::new(node.connect, RelayTable::default(), routes) }))
}

/// The member that the certificate is for. Waits for it.
async fn name_of(identity: &mut Current) -> anyhow::Result<ClusterName> {
    let tls = identity.wait_for(Option::is_some).await?.clone();
    match tls.map(|tls| tls.bearer().role) {
        Some(Role::Names(name)) => Ok(name.parse()?),
        other => anyhow::bail!("the certificate is for {other:?}, and not for node-local DNS"),
    }
}

/// Ends everything if the certificate turns out to be another member's.
async fn check(mut identity: Current, cluster: ClusterName, shutdown: CancellationToken) {
    if let Some(Ok(name)) = shutdown.run_until_cancelled(name_of(&mut identity)).await
        && name != cluster
    {
        tracing::error!("agent.cluster is `{cluster}`, but this member has joined as `{name}`: correct the file");
        shutdown.cancel();
    }
}

/// Where the agent found the hub.
async fn hub_of(client: Client) -> io::Result<String> {
    let secrets: Api<Secret> = Api::namespaced(client, SYSTEM_NAMESPACE);
    let secret = secrets.get(atoll_agents::NAMES_SECRET).await.map_err(io::Error::other)?;
    let at = secret.data.and_then(|mut data| data.remove("hub")).and_then(|at| String::from_utf8(at.0).ok());
    at.ok_or_else(|| io::Error::other("the Secret does not say where the hub is"))
}

/// The members as this node reaches them: its own directly, whatever others have to do.
fn near(topology: &Topology, own: &ClusterName) -> Topology {
    let mut near = Topology { endpoints: topology.endpoints.clone(), ..Topology::default() };
    near.clusters = topology.clusters.clone();
    if let Some(facts) = near.clusters.get(own) {
        let mut facts = ClusterFacts::clone(facts);
        facts.spec.reach = Reach::Direct;
        facts.overlaps = false;
        near.clusters.insert(own.clone(), Arc::new(facts));
    }
    near
}
