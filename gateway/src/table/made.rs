//! What a table was made of, kept so that a change rebuilds only what it touches: which listeners and hosts a route stands at, which
//! upstreams it uses, which services it names. Pure.
//!
//! ```text
//!   attach / detach a route ─► touched: listeners, Gateways, policies ─► publish (listener tables) and judge (statuses)
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use atoll_api::names::ServiceName;
use atoll_api::topology::{BalancerState, ServedGateway};
use kube::ResourceExt as _;

use super::backend::{Noted, Resolver};
use super::build::{Input, Memory, Ports};
use super::entry::GatewayDraft;
use super::policy::Policies;
use super::served::served;
use super::upstreams::Upstreams;
use super::{Entry, Host, Level, ListenerDraft, ListenerTable, Policy, Slot, SlotTable, Table};
use crate::attach::Hosts;
use crate::ingress;
use crate::kinds::KINDS;
use crate::objects::{Kind, Name, Objects, label_parts};
use crate::status::{RouteVerdicts, Sheet, balancer_state};
use crate::tls::{Asks, Keys};

/// Which route.
pub(crate) type RouteName = (Kind, Name);

/// Where a route stands: a listener of a Gateway, both by their places, and host names there.
#[derive(Debug)]
pub(crate) struct Spot {
    gateway: usize,
    listener: usize,
    hosts: Box<[Option<Host>]>,
    /// Whether the listener counts it among its routes.
    counted: bool,
}

impl Spot {
    pub(crate) fn new(gateway: usize, listener: usize, hosts: &Hosts) -> Self {
        Self { gateway, listener, hosts: hosts.iter().map(|(host, _)| host.clone()).collect(), counted: true }
    }

    /// One that is not counted is of a route that is not accepted: its requests are its own all the same, and refused.
    pub(crate) fn counted(self, counted: bool) -> Self {
        Self { counted, ..self }
    }
}

/// A route that was attached. There may be thousands.
#[derive(Debug)]
pub(super) struct Attached {
    verdicts: RouteVerdicts,
    spots: Box<[Spot]>,
    /// What stays of [`Noted`]; names are shared with [`Made::by_service`].
    upstreams: Box<[usize]>,
    services: Box<[Arc<ServiceName>]>,
    ancestors: Box<[(usize, usize)]>,
}

/// What providers work on.
pub(crate) struct Draft<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) resolver: Resolver<'a>,
    /// Oldest first.
    pub(crate) gateways: &'a mut Vec<GatewayDraft>,
    /// Why the route refuses its requests: its namespace has as many as it may have. Nothing of it is compiled then, but that they stay its own.
    pub(crate) over: Option<Arc<str>>,
    made: Option<(RouteVerdicts, Vec<Spot>)>,
}

impl Draft<'_> {
    /// Says what became of the route, and where it stands.
    pub(crate) fn attached(&mut self, verdicts: RouteVerdicts, spots: Vec<Spot>) {
        self.made = Some((verdicts, spots));
    }
}

/// What changes touched since the last table.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// By the places of Gateway and listener.
    pub(super) listeners: BTreeSet<(usize, usize)>,
    /// Whose statuses are to be judged.
    pub(super) gateways: BTreeSet<usize>,
    pub(super) routes: BTreeSet<RouteName>,
    pub(super) policies: BTreeSet<usize>,
    /// Upstreams that fewer use.
    pub(super) released: BTreeSet<usize>,
}

/// What the table is made of.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(super) gateways: Vec<GatewayDraft>,
    pub(super) policies: Policies,
    pub(super) upstreams: Upstreams,
    /// TrafficPolicies of services.
    pub(super) traffic: HashMap<ServiceName, Arc<Policy>>,
    /// By their labels, which the rules and the objects share.
    pub(super) routes: BTreeMap<Arc<str>, Box<Attached>>,
    /// Routes by the services that they name.
    pub(super) by_service: HashMap<Arc<ServiceName>, BTreeSet<Arc<str>>>,
    /// Which policies have to do with which Gateways, by their places, and how many routes say so.
    pub(super) ancestors: BTreeMap<(usize, usize), usize>,
    pub(super) table: Table,
    pub(super) sheet: Sheet,
    pub(super) served: BTreeMap<String, ServedGateway>,
    pub(super) balanced: BTreeMap<String, BalancerState>,
    pub(super) wanted: BTreeSet<Slot>,
    /// What it was built with.
    pub(super) ports: Ports,
    pub(super) addresses: Vec<String>,
}

impl Made {
    /// Attaches a route, where there is one.
    pub(super) fn attach(&mut self, input: &Input<'_>, keys: &mut Keys, route: &RouteName, touched: &mut Touched) {
        let Some(provider) = KINDS.iter().find(|p| p.row == route.0) else { return };
        let resolver = Resolver {
            objects: input.objects,
            topology: input.topology,
            tls: &self.policies,
            keys,
            traffic: &self.traffic,
            upstreams: &mut self.upstreams,
            noted: Noted::default(),
        };
        let over = input.objects.over.routes.get(route).cloned();
        let mut draft = Draft { objects: input.objects, resolver, gateways: &mut self.gateways, over, made: None };
        (provider.provide)(&mut draft, &route.1);
        let Draft { resolver, made: Some((verdicts, spots)), .. } = draft else { return };
        let Noted { upstreams, services, ancestors, .. } = resolver.noted;
        let name = verdicts.object.label().unwrap_or_else(|| label(route).into());
        let services = services.into_iter().map(|service| self.named(service, &name)).collect();
        for pair in &ancestors {
            *self.ancestors.entry(*pair).or_default() += 1;
        }
        let (upstreams, ancestors) = (upstreams.into(), ancestors.into_iter().collect());
        let attached = Box::new(Attached { verdicts, spots: spots.into(), upstreams, services, ancestors });
        touched.stood(&attached);
        touched.routes.insert(route.clone());
        self.routes.insert(name, attached);
    }

    /// Notes that a route names a service.
    fn named(&mut self, service: ServiceName, route: &Arc<str>) -> Arc<ServiceName> {
        let service = self.by_service.get_key_value(&service).map_or_else(|| Arc::new(service), |(k, _)| Arc::clone(k));
        self.by_service.entry(Arc::clone(&service)).or_default().insert(Arc::clone(route));
        service
    }

    /// Takes a route away from wherever it stands.
    pub(super) fn detach(&mut self, route: &RouteName, touched: &mut Touched) {
        let name = label(route);
        let Some(attached) = self.routes.remove(&*name) else { return };
        touched.stood(&attached);
        touched.routes.insert(route.clone());
        for spot in &attached.spots {
            let listener = &mut self.gateways[spot.gateway].listeners[spot.listener];
            listener.attached -= i32::from(spot.counted);
            let levels = Arc::make_mut(&mut listener.routes);
            for host in spot.hosts.iter().map(Option::as_ref) {
                let stays = |entry: &Entry| *entry.rule.route != *name;
                if levels.get(host).is_some_and(|level| !level.iter().any(stays)) {
                    levels.remove(host);
                } else if let Some(level) = levels.get_mut(host) {
                    Arc::make_mut(level).retain(stays);
                    listener.unsorted.insert(host.cloned());
                }
                let streams = listener.streams.get_mut(host).map(|waiting| {
                    waiting.retain(|rule| *rule.route != *name);
                    waiting.is_empty()
                });
                if streams == Some(true) {
                    listener.streams.remove(host);
                }
            }
        }
        for at in attached.upstreams {
            self.upstreams.release(at);
            touched.released.insert(at);
        }
        for service in &attached.services {
            if let Some(routes) = self.by_service.get_mut(service) {
                routes.remove(&*name);
                if routes.is_empty() {
                    self.by_service.remove(service);
                }
            }
        }
        for pair in &attached.ancestors {
            let count = self.ancestors.entry(*pair).or_default();
            *count -= 1;
            if *count == 0 {
                self.ancestors.remove(pair);
            }
        }
    }

    /// The routes that name a service.
    pub(super) fn routes_of(&self, service: &ServiceName) -> impl Iterator<Item = RouteName> {
        self.by_service.get(service).into_iter().flatten().filter_map(|label| labelled(label))
    }

    /// The object of a route is another one, and says nothing else.
    pub(super) fn retell(&mut self, objects: &Objects, route: &RouteName) {
        let provider = KINDS.iter().find(|p| p.row == route.0);
        let object = provider.and_then(|p| (p.object)(objects, &route.1));
        if let (Some(attached), Some(object)) = (self.routes.get_mut(&*label(route)), object) {
            attached.verdicts.object = object;
        }
    }

    /// Puts what was touched into the table.
    pub(super) fn publish(&mut self, input: &Input<'_>, keys: &mut Keys, touched: &Touched) {
        for (gateway, listener) in &touched.listeners {
            self.publish_listener(*gateway, *listener, keys);
        }
        self.upstreams.sweep(touched.released.iter().copied());
        self.table.upstreams.clone_from(&self.upstreams.table);
        self.table.topology = Arc::clone(input.topology);
        for gateway in touched.listeners.iter().map(|(gateway, _)| *gateway).chain(touched.gateways.iter().copied()) {
            let draft = &self.gateways[gateway];
            let name = draft.label();
            if let Some((place, state)) = balancer_state(draft, input.objects) {
                self.balanced.insert(place, state);
                continue;
            }
            match served(draft) {
                Some(said) => drop(self.served.insert(name, said)),
                None => drop(self.served.remove(&name)),
            }
        }
    }

    fn publish_listener(&mut self, gateway: usize, at: usize, keys: &mut Keys) {
        let gateway = &mut self.gateways[gateway];
        let (name, refused) = (gateway.label(), gateway.refused.is_some());
        let set = gateway.listeners[at].set.and_then(|set| gateway.sets.get(set));
        let set = set.map(|set| format!("{}/{}", set.namespace, set.object.name_any()));
        let (earlier, rest) = gateway.listeners.split_at_mut(at);
        let listener = &mut rest[0];
        let unsorted = std::mem::take(&mut listener.unsorted);
        if !unsorted.is_empty() {
            // One of the same name mostly has the same routes: HTTP beside HTTPS.
            let twin = earlier.iter().rfind(|other| other.host == listener.host).map(|other| &other.routes);
            let levels = Arc::make_mut(&mut listener.routes);
            for host in unsorted.iter().map(Option::as_ref) {
                if let Some(level) = levels.get_mut(host) {
                    settle(level, twin.and_then(|twin| twin.get(host)));
                }
            }
        }
        let table = (!refused && listener.is_programmed()).then(|| {
            Arc::new(ListenerTable {
                id: Arc::clone(&listener.id),
                set,
                gateway: name,
                name: listener.spec.name.clone(),
                port: listener.port,
                host: listener.host.clone(),
                mode: listener.mode,
                server: listener.server(keys),
                certificates: listener.certificates.as_slice().into(),
                verifies: listener.clients.as_ref().is_some_and(|check| check.asks != Asks::Never),
                routes: Arc::clone(&listener.routes),
                streams: listener.streams.map(|waiting| Arc::clone(&waiting[0])),
            })
        });
        for slot in std::mem::take(&mut listener.served) {
            let Some(served) = self.table.slots.get_mut(&slot) else { continue };
            Arc::make_mut(served).listeners.remove(listener.host.as_ref());
            if served.listeners.is_empty() {
                self.table.slots.remove(&slot);
            }
        }
        let Some(table) = table else { return };
        listener.served.clone_from(&listener.slots);
        for slot in &listener.slots {
            let served: &mut SlotTable = Arc::make_mut(self.table.slots.entry(*slot).or_default());
            served.protocol = listener.protocol;
            served.listeners.entry(listener.host.as_ref(), || Arc::clone(&table));
        }
    }

    /// Compares the statuses of what was touched.
    pub(super) fn judge(&mut self, input: &Input<'_>, touched: &Touched) {
        // Each once, however many of its listeners were touched.
        let of_listeners = touched.listeners.iter().map(|(gateway, _)| *gateway);
        let gateways: BTreeSet<usize> = of_listeners.chain(touched.gateways.iter().copied()).collect();
        for gateway in gateways {
            self.sheet.gateway(&self.gateways[gateway], input);
        }
        for route in &touched.routes {
            let attached = self.routes.get(&*label(route));
            self.sheet.route(route, attached.map(|attached| &attached.verdicts), input);
            if let (Kind::Ingress, Some(object)) = (route.0, input.objects.ingresses.at(&route.1)) {
                let stands = attached.is_some_and(|attached| attached.spots.iter().any(|spot| spot.counted));
                let mut gateways = self.gateways.iter().filter(|draft| stands && ingress::is_ours(&*draft.object));
                self.sheet.ingress(object, gateways.next(), input);
            }
            if matches!(route.0, Kind::Ingress | Kind::Tcp | Kind::Udp) {
                let spots = attached.iter().flat_map(|attached| &attached.spots);
                let of_hosts = spots.map(|spot| &self.gateways[spot.gateway].listeners[spot.listener]);
                let unserved: Vec<&ListenerDraft> = of_hosts.filter(|listener| !listener.is_programmed()).collect();
                let verdicts = attached.map(|attached| &attached.verdicts);
                match route.0 {
                    Kind::Ingress => self.sheet.ingress_warnings(&route.1, verdicts, &unserved),
                    _ => self.sheet.port_warnings(route, verdicts, &unserved, input.objects),
                }
            }
        }
        for at in &touched.policies {
            self.sheet.policy(*at, &self.policies, &self.gateways, &self.ancestors, input);
        }
    }
}

impl Touched {
    /// A route stands there, or stood.
    fn stood(&mut self, attached: &Attached) {
        self.listeners.extend(attached.spots.iter().map(|spot| (spot.gateway, spot.listener)));
        self.policies.extend(attached.ancestors.iter().map(|(policy, _)| *policy));
    }
}

/// A route as rules call it.
fn label(route: &RouteName) -> String {
    let kind = KINDS.iter().find(|p| p.row == route.0).map_or("", |p| p.kind);
    format!("{kind} {}/{}", route.1.0, route.1.1)
}

/// The route that is called so.
fn labelled(label: &str) -> Option<RouteName> {
    let (kind, (namespace, name)) = label_parts(label);
    let row = KINDS.iter().find(|p| p.kind == kind)?.row;
    Some((row, (namespace.to_owned(), name.to_owned())))
}

impl GatewayDraft {
    /// namespace/name.
    pub(super) fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.object.name_any())
    }
}

/// "precedence must be given to the largest number of characters in a matching non-wildcard hostname, … in a matching hostname", then by
/// match, then the older route, then by name, then the earlier rule.
fn precedence(a: &Entry, b: &Entry) -> std::cmp::Ordering {
    (b.host_rank.cmp(&a.host_rank))
        .then_with(|| a.matcher.order(&b.matcher))
        .then_with(|| a.rule.seniority().cmp(&b.rule.seniority()))
        .then_with(|| a.rule.index.cmp(&b.rule.index))
}

/// Puts entries in order, and shares those of `twin`, the same host of another listener, where they are the same: there may be thousands.
fn settle(level: &mut Level, twin: Option<&Level>) {
    if !level.is_sorted_by(|a, b| precedence(a, b).is_le()) {
        Arc::make_mut(level).sort_by(precedence);
    }
    let is_same = |(a, b): (&Entry, &Entry)| {
        Arc::ptr_eq(&a.rule, &b.rule) && Arc::ptr_eq(&a.matcher, &b.matcher) && a.host_rank == b.host_rank
    };
    if let Some(twin) = twin.filter(|twin| twin.len() == level.len() && twin.iter().zip(&***level).all(is_same)) {
        *level = Arc::clone(twin);
    }
}

/// What is remembered from one table to the next is taken apart, so that its parts can be used at once.
pub(super) fn parts(memory: &mut Memory) -> (&mut Made, &mut Keys) {
    (&mut memory.made, &mut memory.keys)
}
