//! The route table: what every request is looked up in. Never changed, swapped whole; what does not differ from the one before is shared
//! with it. Pure.
//!
//! ```text
//!   slot (where it came in) ─► listener (most specific host) ─┬► routes (hosts, then precedence) ─► rule ─┬► backend ─► upstream
//!                                                             └► streams (server name) ──────────────────┘
//! ```
//!
//! In: objects and topology, and what changed of them ([`rebuild()`]). Out: [`Table`]. Upstreams are known by service
//! and port, never by rule, so that connections, health and balance outlive a change of routes.

mod address;
mod backend;
mod balanced;
mod build;
mod claim;
mod clients;
mod differ;
mod entry;
mod front;
mod grant;
mod host;
mod lease;
mod listener;
mod local;
mod made;
mod matching;
mod policy;
mod rebuild;
mod served;
mod set;
mod subset;
mod traffic;
mod upstreams;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::health::HealthView;
use atoll_api::ingress::KeyPart;
use atoll_api::kinds::Subset;
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::routing::Chain;
use atoll_api::topology::{ClusterFacts, Topology};
use jiff::Timestamp;

pub(crate) use backend::{
    IMPORT_GROUP, OwnTls, Problem, Resolver, Scope, Wants, import_parts, member_targets, pick_port, service_port,
};
pub(crate) use balanced::member_parts;
pub(crate) use build::{Built, Certified, Input, Memory, Ports, Unopened};
pub(crate) use clients::validation;
pub(crate) use entry::{GatewayDraft, SetDraft};
pub(crate) use front::{CLASS_NAME, Front, GATEWAY_NAME, MANAGER, is_front, label};
pub(crate) use grant::{From, INGRESS_GROUP, To, permits};
pub(crate) use host::{Host, HostMap};
pub(crate) use listener::ListenerDraft;
pub(crate) use local::{is_external, local_parts, slice_targets};
pub(crate) use made::{Draft, RouteName, Spot};
pub(crate) use matching::{Asking, Match, PathMatch, regex_bytes};
pub(crate) use policy::{Judged, Policies};
pub(crate) use rebuild::rebuild;
pub(crate) use served::behind;
pub(crate) use set::{allows, sets};
pub(crate) use subset::{find_subset, subset_named, subset_of, subset_suffix};

use crate::balance::Balance;
use crate::balancer::Terms;
use crate::choose::Capacity;
use crate::filter::Filter;
use crate::health::Care;
use crate::objects::{Seniority, seniority};
use crate::session::Session;
use crate::tls::{BackendTls, Certificate};

/// Where listeners are served: the shared ports, or one of their own, at the shared address or a Gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Slot {
    /// The shared port for HTTP.
    Http,
    /// The shared port for HTTPS.
    Https,
    /// A further TCP port.
    Tcp(Option<IpAddr>, u16),
    /// A UDP port.
    Udp(Option<IpAddr>, u16),
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http => f.write_str("http"),
            Self::Https => f.write_str("https"),
            Self::Tcp(None, port) => write!(f, "{port}"),
            Self::Tcp(Some(ip), port) => write!(f, "{}", SocketAddr::new(*ip, *port)),
            Self::Udp(None, port) => write!(f, "udp {port}"),
            Self::Udp(Some(ip), port) => write!(f, "udp {}", SocketAddr::new(*ip, *port)),
        }
    }
}

/// What is spoken at a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    #[default]
    Http,
    /// TLS, ended here or passed through, as the listener of the server name says.
    Tls,
    Tcp,
    Udp,
}

/// What a listener does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Requests are looked up in its routes; where the slot speaks TLS, it ends here.
    Requests,
    /// TLS ends here, and its bytes go to a backend.
    Terminate,
    /// Bytes or packets go to a backend as they are.
    Pass,
}

/// The whole table. A clone shares everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// Listeners by where they are served.
    pub(crate) slots: BTreeMap<Slot, Arc<SlotTable>>,
    /// What backends point to. Each keeps its place from one table to the next.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// TrafficPolicies that name hosts, by host.
    pub(crate) host_policies: Arc<HashMap<String, Arc<Policy>>>,
    /// The topology that it was built from.
    pub(crate) topology: Arc<Topology>,
}

/// What is served at one port.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlotTable {
    pub(crate) protocol: Protocol,
    /// Listeners by host name.
    pub(crate) listeners: HostMap<Arc<ListenerTable>>,
}

/// One listener with its routes, which are shared with what the next table is made from.
#[derive(Debug)]
pub(crate) struct ListenerTable {
    /// namespace/name of its Gateway.
    pub(crate) gateway: String,
    /// namespace/name of the ListenerSet that it is of.
    pub(crate) set: Option<String>,
    /// Its name there.
    pub(crate) name: String,
    /// Gateway and listener, for logs.
    pub(crate) id: Arc<str>,
    /// The port that it was written with.
    pub(crate) port: u16,
    /// Its host name.
    pub(crate) host: Option<Host>,
    pub(crate) mode: Mode,
    /// How TLS is spoken, where it ends here.
    pub(crate) server: Option<Arc<rustls::ServerConfig>>,
    /// What is shown then, by name.
    pub(crate) certificates: Box<[Arc<Certificate>]>,
    /// A certificate that a client shows is vouched for.
    pub(crate) verifies: bool,
    /// Routes by host name, in order of precedence.
    pub(crate) routes: Arc<HostMap<Level>>,
    /// Where streams go, by server name.
    pub(crate) streams: HostMap<Arc<StreamRule>>,
}

/// The entries of one host name, in order of precedence.
pub(crate) type Level = Arc<Vec<Entry>>;

/// Where a stream or a packet goes.
#[derive(Debug)]
pub(crate) struct StreamRule {
    /// When the route was made.
    pub(crate) created: Option<Timestamp>,
    /// kind namespace/name of the route.
    pub(crate) route: Arc<str>,
    /// Backends with a weight above 0.
    pub(crate) backends: Vec<Backend>,
    /// What the Service that it is of asks for.
    pub(crate) terms: Option<Arc<Terms>>,
    /// Nobody is served, because its namespace has as many routes as it may have.
    pub(crate) over: Option<Arc<str>>,
}

/// One match of a rule.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) matcher: Arc<Match>,
    pub(crate) rule: Arc<Rule>,
    /// How specific the route's own host name is.
    pub(crate) host_rank: (u8, usize),
}

/// What is done with a request that matches. There may be thousands: what few have is boxed.
#[derive(Debug)]
pub(crate) struct Rule {
    /// When the route was made.
    pub(crate) created: Option<Timestamp>,
    /// kind namespace/name of the route.
    pub(crate) route: Arc<str>,
    /// The how-manieth rule of it.
    pub(crate) index: usize,
    /// Its name.
    pub(crate) name: Option<String>,
    /// Filters, in order.
    pub(crate) filters: Vec<Box<dyn Filter>>,
    /// Backends with a weight above 0.
    pub(crate) backends: Vec<Backend>,
    /// Bound on the time until the answer begins.
    pub(crate) request_timeout: Option<Duration>,
    /// The same for one attempt.
    pub(crate) backend_timeout: Option<Duration>,
    /// What is tried again beside what always is.
    pub(crate) retry: Option<Box<Retry>>,
    /// How sessions are kept.
    pub(crate) session: Option<Box<Session>>,
    /// Who answers where the backend has no endpoint.
    pub(crate) stand_in: Option<Box<Backend>>,
    /// By what endpoints are chosen, where it is not as the policy says.
    pub(crate) key: Option<Box<[KeyPart]>>,
    /// Why every request is answered with an error.
    pub(crate) refused: Option<Box<Unserved>>,
}

/// Why a route is there and serves nobody.
#[derive(Debug, Clone)]
pub(crate) enum Unserved {
    /// It can't be carried out.
    Broken(String),
    /// Its namespace has as many routes as it may have.
    Over(Arc<str>),
}

impl Unserved {
    /// Why, where it is over a bound.
    pub(crate) fn over(&self) -> Option<&Arc<str>> {
        match self {
            Self::Broken(_) => None,
            Self::Over(why) => Some(why),
        }
    }
}

impl Rule {
    /// By what the older of two is known.
    pub(crate) fn seniority(&self) -> Seniority<'_> {
        seniority(self.created, &self.route)
    }

    /// Whether requests pass as they are: nothing of the rule looks at or changes more than where they go.
    pub(crate) fn is_plain(&self) -> bool {
        let changes = !self.filters.is_empty() || self.backends.iter().any(|b| !b.filters.is_empty());
        let elsewhere = self.stand_in.is_some() || self.key.is_some();
        !(changes || elsewhere || self.refused.is_some() || self.retry.is_some() || self.session.is_some())
    }
}

/// What a rule tries again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Statuses of answers.
    pub(crate) codes: Vec<u16>,
    /// How often.
    pub(crate) attempts: usize,
    /// That is written: then it bounds, too, how often a request is sent again whose connection broke.
    pub(crate) counted: bool,
    /// Least time between two.
    pub(crate) backoff: Duration,
}

/// A backend of a rule.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Its share.
    pub(crate) weight: u32,
    /// As the route names it.
    pub(crate) name: String,
    /// The upstream's index, or why there is none.
    pub(crate) target: Result<usize, String>,
    /// Filters of its own.
    pub(crate) filters: Vec<Box<dyn Filter>>,
}

/// Which service, and whose; those that routes name perhaps a subset of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum UpstreamId {
    /// A Service of the hub's own API.
    Local(ServiceName, u16, Option<String>),
    /// A service of a cluster set.
    Set(String, ServiceName, u16, Option<String>),
    /// A Service of one member.
    Member(ClusterName, ServiceName, u16),
}

impl UpstreamId {
    /// Whom a request names that comes from us.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Local(service, port, _) | Self::Set(_, service, port, _) | Self::Member(_, service, port) => {
                format!("{}.{}:{port}", service.name, service.namespace)
            }
        }
    }

    /// The whole service of which it may be a subset.
    pub(crate) fn whole(&self) -> Self {
        match self {
            Self::Local(service, port, _) => Self::Local(service.clone(), *port, None),
            Self::Set(set, service, port, _) => Self::Set(set.clone(), service.clone(), *port, None),
            Self::Member(..) => self.clone(),
        }
    }

    /// The service's port.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Local(_, port, _) | Self::Set(_, _, port, _) | Self::Member(_, _, port) => *port,
        }
    }

    /// The subset, where it is one.
    pub(crate) fn subset(&self) -> Option<&str> {
        match self {
            Self::Local(.., subset) | Self::Set(.., subset) => subset.as_deref(),
            Self::Member(..) => None,
        }
    }
}

impl std::fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(service, port, _) => write!(f, "Service {service}:{port}"),
            Self::Member(cluster, service, port) => write!(f, "Service {service}:{port} of cluster {cluster}"),
            Self::Set(set, service, port, _) => write!(f, "ServiceImport {service}:{port} of cluster set {set}"),
        }?;
        f.write_str(&subset_suffix(self.subset()))
    }
}

/// A service with its endpoints.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) id: UpstreamId,
    /// Its endpoints speak HTTP/2.
    pub(crate) h2: bool,
    /// They are reached by UDP.
    pub(crate) udp: bool,
    /// How TLS is spoken to them.
    pub(crate) tls: Option<Arc<BackendTls>>,
    /// The clusters that offer it.
    pub(crate) clusters: Vec<Part>,
    /// The names by which its endpoints are reached.
    pub(crate) names: Box<[Arc<str>]>,
    /// The TrafficPolicy of the service.
    pub(crate) policy: Option<Arc<Policy>>,
}

/// What one cluster offers of a service.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The member; nothing: the hub's own network.
    pub(crate) cluster: Option<Arc<ClusterFacts>>,
    /// Its ready endpoints, with those that fail their health check.
    pub(crate) endpoints: Vec<Target>,
}

impl Part {
    /// Without endpoints that fail their health check.
    pub(crate) fn well(mut self) -> Self {
        self.endpoints.retain(|endpoint| !endpoint.failing);
        self
    }

    /// Its name.
    pub(crate) fn name(&self) -> Option<&ClusterName> {
        self.cluster.as_ref().map(|c| &c.name)
    }
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// Where its node listens for its Service: the way in where its own address is not routed.
    pub(crate) door: Option<SocketAddr>,
    /// It has a door that others have, too, and may not be reached by.
    pub(crate) alone: bool,
    pub(crate) zone: Option<String>,
    pub(crate) pod: Option<String>,
    /// The hub says that it fails the health check of its service's policy: while that counts it takes no requests.
    pub(crate) failing: bool,
}

/// A TrafficPolicy, parsed.
#[derive(Debug)]
pub(crate) struct Policy {
    /// namespace/name.
    pub(crate) name: String,
    pub(crate) chain: Chain,
    /// How the gateway divides requests among the endpoints of the chosen clusters.
    pub(crate) balance: Balance,
    /// How many requests a cluster is sent at once.
    pub(crate) capacity: Option<Capacity>,
    /// How endpoints are watched and spared.
    pub(crate) care: Arc<Care>,
    /// Parts of the service that routes may name.
    pub(crate) subsets: Box<[Arc<Subset>]>,
}

/// Whose word on a cluster counts, beside what this replica sees itself.
pub(crate) fn believes(view: &HealthView, cluster: &ClusterName, out: bool) -> bool {
    // Who sees almost nobody distrusts its own eyes.
    view.ready(cluster.as_str()) && (!out || view.source() == atoll_api::health::Source::Panic)
}

impl Table {
    /// The listener that a request for `host` at `slot` belongs to.
    pub(crate) fn listener<'a>(&'a self, slot: Slot, host: &'a str) -> Option<&'a Arc<ListenerTable>> {
        self.slots.get(&slot)?.listeners.find(host)
    }
}

impl ListenerTable {
    /// The first rule, by precedence, that takes the request.
    pub(crate) fn route<'a>(&'a self, host: &'a str, request: &impl Asking) -> Option<&'a Entry> {
        self.routes.levels(host).flat_map(|level| level.iter()).find(|entry| entry.matcher.takes(request))
    }
}
