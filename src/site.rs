//! What a DNS server and a gateway have in common as sites of the topology.
//!
//! ```text
//!   hub's API ── Secret atoll-site-<kind> ──► certificate ─► TLS identity ─┬─► hub: follow (topology), report
//!                                  cached in the directory                 └─► relay port: agents' connections ─► relay table
//!   topology ─► revocations, probes ─► routes ─► dialer
//! ```
//!
//! In: names, a client, the relay's listener, a directory. Out: topology, dialer, report. With the hub dead at the start it works from the
//! cached certificate and the last good topology. Never answers a query or a request.

mod certificate;
mod hub;
mod node;
mod relay;

use std::path::PathBuf;
use std::sync::Arc;

use atoll_api::topology::{Site, Standing};
use atoll_reach::{Accept, Connect, Dialer, RelayTable, Revocations, Routes, Serial, probe_members};
use atoll_wire::follow::{Follow, Line, Report, Snapshot, follow};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::certificate::Whose;
pub(crate) use self::certificate::{Current, Secrecy};
pub(crate) use self::node::{Followed, Node, follow_only};

use crate::config::host_name;

/// What a site is and what it is given.
pub(crate) struct Setup {
    /// `dns` or `gateway`; the name in its certificate, too.
    pub(crate) kind: &'static str,
    /// Unique among replicas.
    pub(crate) instance: String,
    /// host:port of the hub.
    pub(crate) hub: String,
    /// The hub's API.
    pub(crate) client: kube::Client,
    /// Where agents open their relay connections.
    pub(crate) relay: Box<dyn Accept>,
    /// And under which host:port they find it.
    pub(crate) relay_at: String,
    /// Where users reach it.
    pub(crate) addresses: Vec<String>,
    pub(crate) standing: Standing,
    /// For certificate and topology.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) connect: Arc<dyn Connect>,
    /// Where agents' relay connections are kept.
    pub(crate) relays: RelayTable,
    /// Until when the hub is followed and told: whoever ends speaks for the site no more, while its relays go on.
    pub(crate) follow_until: CancellationToken,
}

/// What the part gets of it.
pub(crate) struct Common {
    /// The site's certificate, once there is one.
    pub(crate) identity: Current,
    /// With what it seals its files, and the id of the hub that they are of, where known.
    pub(crate) secrecy: Secrecy,
    pub(crate) hub_id: Option<String>,
    pub(crate) topology: watch::Receiver<Snapshot>,
    pub(crate) dialer: Dialer,
    pub(crate) report: watch::Sender<Report>,
    /// The connection to the hub.
    pub(crate) line: Line,
}

/// A site's name: the part, and the host's or whatever the operator calls it.
pub(crate) fn instance(kind: &str, said: Option<&str>) -> String {
    let name = said.map_or_else(host_name, str::to_owned);
    let own = name == kind || name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('-'));
    match (own, name.is_empty()) {
        (_, true) => kind.to_owned(),
        (true, _) => name,
        // As the hub does: a site speaks only under the name of its certificate.
        (false, _) => format!("{kind}-{name}"),
    }
}

/// Starts it in `tasks`; all of them end with `shutdown`.
pub(crate) async fn start(setup: Setup, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) -> Common {
    let revocations = Revocations::none();
    let keeper =
        certificate::Keeper::new(Whose::Site(setup.kind), setup.client, setup.dir.clone(), revocations.clone());
    let (keeper, identity, secrecy) = keeper.load().await;
    let hub_id = identity.borrow().as_ref().map(|tls| tls.bearer().hub);
    tasks.spawn(keeper.run(shutdown.clone()));

    setup.relays.call(&setup.instance);
    let (report, reports) = watch::channel(Report {
        site: Site {
            instance: setup.instance,
            kind: setup.kind.to_owned(),
            relay: setup.relay_at,
            addresses: setup.addresses,
            cluster: setup.standing.cluster,
            region: setup.standing.region,
            zone: setup.standing.zone,
            cluster_set: setup.standing.cluster_set,
            ..Site::default()
        },
        ..Report::default()
    });
    let way = hub::Way { at: setup.hub, connect: Arc::clone(&setup.connect), identity: identity.clone() };
    let dial = move || {
        let way = way.clone();
        async move { way.channel().await }
    };
    let (topology, line, following) =
        follow(Follow { hub_id: hub_id.clone(), dir: setup.dir }, dial, reports, setup.follow_until).await;
    tasks.spawn(following);
    tasks.spawn(revoke(topology.clone(), revocations, shutdown.clone()));

    let (relays, routes) = (setup.relays, Routes::default());
    tasks.spawn(relay::serve(setup.relay, identity.clone(), relays.clone(), shutdown.clone()));
    let of = |snapshot: &Snapshot| Some(Arc::clone(&snapshot.topology));
    tasks.spawn(probe_members(Arc::clone(&setup.connect), topology.clone(), of, routes.clone(), shutdown.clone()));
    Common { identity, secrecy, hub_id, topology, dialer: Dialer::new(setup.connect, relays, routes), report, line }
}

/// Takes the hub's list of revoked certificates as ours.
async fn revoke(mut topology: watch::Receiver<Snapshot>, revocations: Revocations, shutdown: CancellationToken) {
    loop {
        let now = Arc::clone(&topology.borrow_and_update().topology);
        revocations.set(now.settings.revoked.iter().map(|s| Serial::from_hex(s)));
        tokio::select! {
            changed = topology.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::instance;

    #[test]
    fn an_instance_is_named_below_its_part() {
        for (kind, said, name) in [
            ("dns", "dns", "dns"),
            ("dns", "dns-fra-1", "dns-fra-1"),
            ("dns", "fra-1", "dns-fra-1"),
            ("gateway", "dns-1", "gateway-dns-1"),
        ] {
            assert_eq!(instance(kind, Some(said)), name);
        }
        assert!(instance("dns", None).starts_with("dns"));
    }
}
