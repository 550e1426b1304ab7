//! Ingresses among the objects: what those of our classes become, and which filters guard them. Pure.
//!
//! In: Ingresses, their classes, BackendTLSPolicies. Out: [`Derived`], a Gateway and its grants among the objects, and what of that is
//! another than before. A rule with filters is named after a stamp of them; until policies of that stamp are in force it is refused, so
//! that nothing is open in between. Names that begin with [`OURS`] are no object's that people can write.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::ingress::{Data, Finding, INGRESS_CLASS, Options, Part, Step, Stream, is_served, streams, translate};
use atoll_api::kinds::gateway::{
    GATEWAY_CLASS, Gateway, GatewaySpec, ReferenceGrant, ReferenceGrantSpec, TCPRouteSpec, UDPRouteSpec,
};
use atoll_api::kinds::route_policy::FilterStep;
use atoll_api::kinds::{RoutePolicy, RoutePolicySpec, SYSTEM_NAMESPACE, TargetRef};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sha2::{Digest as _, Sha256};

use crate::fleet::Fleet;
use crate::objects::{Edit, Identify, Kind, Name, Objects, Route};
use crate::table::INGRESS_GROUP;
use crate::tls::AUTHORITY_KEY;

/// What the names of objects begin with that are made of Ingresses.
const OURS: &str = "ingress:";
/// Stands before the stamp in names of rules.
const STAMP: char = '@';
/// A filter that there is none of: its rules are refused.
pub(crate) const CLOSED: &str = "ingress";

/// Whether an object is made of Ingresses.
pub(crate) fn is_ours<K: Identify + ?Sized>(object: &K) -> bool {
    port_of(object).is_some()
}

/// The port of a ConfigMap that a route stands for: `tcp-9000`.
pub(crate) fn port_of<K: Identify + ?Sized>(object: &K) -> Option<&str> {
    object.place().1.strip_prefix(OURS)
}

/// Whether a rule of that name may serve only with its filters in force.
pub(crate) fn needs_guard(rule: &str) -> bool {
    rule.contains(STAMP)
}

/// Which Ingresses are ours, and where they are served.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    classes: Vec<String>,
    fleet: Fleet,
    options: Options,
    /// The ConfigMaps of ports of TCP, and of UDP.
    services: [Option<Name>; 2],
}

impl Settings {
    /// Whose Ingresses they are.
    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// `classes`: those beside what the fleet serves; `services`: namespace and name of the ConfigMaps `tcp-services` and `udp-services`.
    pub(crate) fn new(
        fleet: Fleet,
        mut classes: Vec<String>,
        default_certificate: Option<Name>,
        services: [Option<Name>; 2],
    ) -> Self {
        classes.extend(fleet.classes());
        let options = Options {
            namespace: SYSTEM_NAMESPACE.to_owned(),
            name: format!("{OURS}{INGRESS_CLASS}"),
            class: GATEWAY_CLASS.to_owned(),
            default_certificate,
        };
        Self { classes, fleet, options, services }
    }
}

/// What Ingresses became.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    /// Grows with every other one.
    pub(crate) generation: u64,
    pub(crate) live: BTreeMap<Name, Live>,
    /// The filters of all.
    pub(crate) policies: Vec<Arc<RoutePolicy>>,
    /// Ports that are not passed on, by their ConfigMap.
    pub(crate) unpassed: Vec<Unpassed>,
    /// The ConfigMaps of ports, TCP's first.
    pub(crate) maps: [Option<Name>; 2],
    streams: Vec<Stream>,
    gateway: Option<GatewaySpec>,
    grants: BTreeMap<String, ReferenceGrantSpec>,
}

/// A port that is not passed on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unpassed {
    /// `tcp-services` or `udp-services`.
    pub(crate) map: &'static str,
    /// The ConfigMap, and which one of that name.
    pub(crate) config: Name,
    pub(crate) uid: Option<String>,
    pub(crate) finding: Finding,
}

/// An Ingress, its rules named after the stamp of their filters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Live {
    /// Of the object.
    pub(crate) uid: Option<String>,
    pub(crate) part: Part,
}

impl Derived {
    /// How many annotations aren't carried out, by what they are and whether they close; ports that aren't are counted by their map.
    pub(crate) fn refused(&self) -> BTreeMap<(&str, bool), i64> {
        let mut counted = BTreeMap::new();
        for finding in self.live.values().flat_map(|live| &live.part.findings) {
            *counted.entry((finding.what.as_str(), finding.closes)).or_default() += 1;
        }
        for port in &self.unpassed {
            *counted.entry((port.map, false)).or_default() += 1;
        }
        counted
    }

    /// Whether any of it has filters.
    pub(crate) fn is_guarded(&self) -> bool {
        !self.policies.is_empty()
    }
}

/// Looks what Ingresses become now. Returns what that means for the table.
pub(crate) fn derive(objects: &mut Objects, settings: &Settings) -> Vec<Edit> {
    let classes: Vec<_> =
        objects.ingress_classes.iter().filter(|class| settings.fleet.may_take(class)).cloned().collect();
    let ours = objects.ingresses.iter().filter(|ingress| is_served(ingress, &classes, &settings.classes));
    let translation = translate(&ours.cloned().collect::<Vec<_>>(), &settings.options);
    let mut policies = Vec::new();
    let mut live = BTreeMap::new();
    for (name, mut part) in translation.parts {
        reach_by_tls(objects, &name.0, &mut part);
        policies.extend(guard(&name, &mut part));
        let uid = objects.ingresses.at(&name).and_then(|object| object.metadata.uid.clone());
        live.insert(name, Live { uid, part });
    }
    let before = Arc::clone(&objects.derived);
    let passed = streams(&data(objects, settings), &settings.options);
    let mut gateway = translation.gateway;
    if !passed.listeners.is_empty() {
        let class = settings.options.class.clone();
        let gateway =
            gateway.get_or_insert_with(|| GatewaySpec { gateway_class_name: class, ..GatewaySpec::default() });
        gateway.listeners.extend(passed.listeners);
    }
    let now = Derived {
        generation: before.generation + 1,
        live,
        policies,
        unpassed: unpassed(objects, settings, passed.findings),
        maps: settings.services.clone(),
        streams: passed.streams,
        gateway,
        grants: translation.grants,
    };
    let same_entry = before.gateway == now.gateway && before.grants == now.grants;
    stand(objects, settings, &before, &now);
    let same_ports = before.streams == now.streams && before.unpassed == now.unpassed;
    if same_entry && before.live == now.live && same_ports {
        return Vec::new();
    }
    let names = before.live.keys().chain(now.live.keys());
    let differ = names.filter(|name| before.live.get(*name) != now.live.get(*name));
    let mut routes: Vec<Edit> = differ.map(|name| Edit::Route(Kind::Ingress, name.clone())).collect();
    let all = before.streams.iter().filter(|s| !now.streams.contains(s));
    let all = all.chain(now.streams.iter().filter(|s| !before.streams.contains(s)));
    routes.extend(all.map(|stream| Edit::Route(row(stream), named(stream))));
    objects.derived = Arc::new(now);
    if same_entry { routes } else { vec![Edit::Whole] }
}

/// What the ConfigMaps of ports say.
fn data(objects: &Objects, settings: &Settings) -> Data {
    let of = |at: &Option<Name>| {
        let (namespace, name) = at.as_ref()?;
        let mut data = objects.config(namespace, name)?.data.clone()?;
        data.remove(AUTHORITY_KEY);
        Some(data)
    };
    let [tcp, udp] = &settings.services;
    Data { tcp: of(tcp).unwrap_or_default(), udp: of(udp).unwrap_or_default() }
}

/// Ports that are not passed on, each with the ConfigMap that has it.
fn unpassed(objects: &Objects, settings: &Settings, findings: Vec<(&'static str, Finding)>) -> Vec<Unpassed> {
    let of = |(map, finding): (&'static str, Finding)| {
        let config = settings.services[usize::from(map != "tcp-services")].clone()?;
        let uid = objects.config(&config.0, &config.1).and_then(|object| object.metadata.uid.clone());
        Some(Unpassed { map, config, uid, finding })
    };
    findings.into_iter().filter_map(of).collect()
}

fn row(stream: &Stream) -> Kind {
    if stream.kind == "TCPRoute" { Kind::Tcp } else { Kind::Udp }
}

fn named(stream: &Stream) -> Name {
    (stream.namespace.clone(), format!("{OURS}{}", stream.name))
}

/// Puts a route of a port among the objects, or takes it away.
fn pass(objects: &mut Objects, stream: &Stream, there: bool) {
    let name = named(stream);
    let (parent_refs, rules) = (vec![stream.parent.clone()], vec![stream.rule.clone()]);
    // Whatever people write is older.
    let age = Timestamp::MAX;
    if stream.kind == "TCPRoute" {
        let spec = TCPRouteSpec { parent_refs, rules, ..TCPRouteSpec::default() };
        objects.tcp.set(&name, there.then(|| Arc::new(Route::made(&name.0, &name.1, age, spec))));
    } else {
        let spec = UDPRouteSpec { parent_refs, rules, ..UDPRouteSpec::default() };
        objects.udp.set(&name, there.then(|| Arc::new(Route::made(&name.0, &name.1, age, spec))));
    }
}

/// Puts the Gateway, its grants and the routes of ports among the objects.
fn stand(objects: &mut Objects, settings: &Settings, before: &Derived, now: &Derived) {
    let Options { namespace, name, .. } = &settings.options;
    let gateway = now.gateway.as_ref().map(|spec| {
        let mut gateway = Gateway::new(name, spec.clone());
        gateway.metadata.namespace = Some(namespace.clone());
        // Whatever Gateways claim is theirs.
        gateway.metadata.creation_timestamp = Some(Time(Timestamp::MAX));
        Arc::new(gateway)
    });
    objects.gateways.set(&(namespace.clone(), name.clone()), gateway);
    before.streams.iter().for_each(|stream| pass(objects, stream, false));
    now.streams.iter().for_each(|stream| pass(objects, stream, true));
    for at in before.grants.keys() {
        objects.grants.set(&(at.clone(), name.clone()), None);
    }
    for (at, spec) in &now.grants {
        let mut grant = ReferenceGrant::new(name, spec.clone());
        grant.metadata.namespace = Some(at.clone());
        objects.grants.set(&(at.clone(), name.clone()), Some(Arc::new(grant)));
    }
}

/// Backends that speak TLS are reached where a BackendTLSPolicy says whom to trust; else the paths are closed.
fn reach_by_tls(objects: &Objects, namespace: &str, part: &mut Part) {
    if !part.backend_tls || part.trusts.is_some() {
        return;
    }
    let is_there = |service: &str| {
        let mut here = objects.policies.iter().filter(|policy| policy.metadata.namespace.as_deref() == Some(namespace));
        here.any(|policy| policy.spec.target_refs.iter().any(|target| target.name == service))
    };
    let rules = part.routes.iter().flat_map(|route| &route.spec.rules);
    let mut backends = rules.flat_map(|rule| &rule.backend_refs);
    let Some(lacking) = backends.find(|backend| !is_there(&backend.target.name)).map(|b| b.target.name.clone()) else {
        return;
    };
    part.findings.push(Finding {
        what: "backend-protocol".to_owned(),
        why: format!("no BackendTLSPolicy says whom to trust as Service `{lacking}`"),
        way: "BackendTLSPolicy",
        closes: true,
    });
    let names = part.routes.iter().flat_map(|route| route.spec.rules.iter().filter_map(|rule| rule.name.clone()));
    part.closed = names.collect();
}

/// Names rules after the stamp of their filters, and makes policies of these.
fn guard(ingress: &Name, part: &mut Part) -> Vec<Arc<RoutePolicy>> {
    let stamp = stamp(part);
    let closed = FilterStep { filter: CLOSED.to_owned(), ..FilterStep::default() };
    let mut steps = part.steps.clone();
    if !part.closed.is_empty() {
        steps.push(Step { rules: part.closed.clone(), step: closed });
    }
    let mut policies: BTreeMap<Vec<String>, Vec<FilterStep>> = BTreeMap::new();
    for step in steps {
        policies.entry(step.rules).or_default().push(step.step);
    }
    let mut all = Vec::new();
    for rule in part.routes.iter_mut().flat_map(|route| &mut route.spec.rules) {
        let Some(name) = &rule.name else { continue };
        if policies.keys().any(|rules| rules.is_empty() || rules.contains(name)) {
            let stamped = format!("{name}{STAMP}{stamp}");
            all.push((name.clone(), stamped.clone()));
            rule.name = Some(stamped);
        } else {
            rule.name = None;
        }
    }
    let made = policies.into_iter().enumerate().map(|(at, (rules, filters))| {
        let meant = all.iter().filter(|(name, _)| rules.is_empty() || rules.contains(name));
        let target = |(_, section): &(String, String)| TargetRef {
            group: INGRESS_GROUP.to_owned(),
            kind: "Ingress".to_owned(),
            name: ingress.1.clone(),
            section_name: Some(section.clone()),
        };
        let spec = RoutePolicySpec { target_refs: meant.map(target).collect(), filters };
        let mut policy = RoutePolicy::new(&format!("{OURS}{}{STAMP}{stamp}:{at}", ingress.1), spec);
        policy.metadata.namespace = Some(ingress.0.clone());
        Arc::new(policy)
    });
    made.collect()
}

/// Other filters, or others whom they guard, have another stamp.
fn stamp(part: &Part) -> String {
    let rules = part.routes.iter().flat_map(|route| route.spec.rules.iter().filter_map(|rule| rule.name.as_ref()));
    let said = format!("{:?} {:?} {:?}", part.steps, part.closed, rules.collect::<Vec<_>>());
    mark(&said)
}

/// What is said, as a few letters of a name: what says something else has others.
pub(crate) fn mark(said: &str) -> String {
    Sha256::digest(said.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
