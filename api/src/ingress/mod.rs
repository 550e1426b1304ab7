//! Ingresses as Gateway API objects: what the gateway serves, and what `atoll gateway import-ingress` prints.
//!
//! ```text
//!   Ingresses ─► wish (annotations, by table) ─► hosts (whose path, canaries, certificates) ─┬► entry: Gateway, grants
//!                                                                                            └► rules: HTTPRoutes, filters, findings
//! ```
//!
//! In: the Ingresses of a class, all of them, for hosts and canaries are shared. Out: [`Translation`]. What an annotation wishes and can't
//! get is a [`Finding`]; one that protects closes the paths of its Ingress. Source: ingress-nginx, "Annotations", "Ingress path matching";
//! Kubernetes, Ingress v1.

mod canary;
mod entry;
mod export;
mod hosts;
mod key;
mod paths;
mod read;
mod rules;
mod services;
mod steps;
pub mod table;
#[cfg(test)]
mod tests;
mod tls;
mod wish;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::ResourceExt as _;

pub use export::{Export, PortNamed, export};
pub use key::KeyPart;
pub use paths::BEGINS;
pub use read::{Finding, PREFIX};
pub use rules::port_name;
pub use services::{Data, Stream, Streams, streams};
pub use steps::SERVICE;
pub use tls::{BackendTls, option};

use crate::kinds::gateway::{
    BackendRef, GATEWAY_CONTROLLER, GatewaySpec, HTTPBackendRef, HTTPRequestRedirect, HTTPRouteMatch, HTTPRouteRule,
    HTTPRouteSpec, L4Rule, ReferenceGrantSpec, TLSRouteSpec,
};
use crate::kinds::route_policy::FilterStep;
use hosts::{Host, Owned, merge};
use rules::{Writing, redirect};
use wish::{Backend, Port, Wish};

/// The IngressClass that exists from the start.
pub const INGRESS_CLASS: &str = "atoll";
/// The annotation that named the class before there was a field.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// By which a class says that it is that of Ingresses without one.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// Where Ingresses are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Of the Gateway.
    pub namespace: String,
    /// Of the Gateway.
    pub name: String,
    /// Its GatewayClass.
    pub class: String,
    /// The certificate of hosts without one: namespace and name of a Secret.
    pub default_certificate: Option<(String, String)>,
}

/// A filter for rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Their names; none: all that have one.
    pub rules: Vec<String>,
    /// The filter.
    pub step: FilterStep,
}

/// A route of an Ingress, of its namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// What an HTTPRoute made of it is called.
    pub name: String,
    /// The route.
    pub spec: HTTPRouteSpec,
}

/// What one Ingress becomes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// Its routes: rules that go to backends have names, others (redirects) have none. The port of a backend below 0 is a place in
    /// `port_names`: -1 is the first.
    pub routes: Vec<Route>,
    /// Routes of TLS that is passed on as it comes.
    pub passed: Vec<TLSRouteSpec>,
    /// What answers where a backend has no endpoint.
    pub stand_in: Option<HTTPBackendRef>,
    /// By what of a request its endpoint is chosen; nothing: as a TrafficPolicy says.
    pub key: Option<Vec<KeyPart>>,
    /// Filters of its rules.
    pub steps: Vec<Step>,
    /// Rules that answer 503.
    pub closed: Vec<String>,
    /// What isn't carried out.
    pub findings: Vec<Finding>,
    /// Ports by name.
    pub port_names: Vec<String>,
    /// Its backends speak gRPC.
    pub grpc: bool,
    /// And TLS: without a BackendTLSPolicy, or whom it trusts itself, nobody is reached.
    pub backend_tls: bool,
    /// Whom it trusts itself.
    pub trusts: Option<BackendTls>,
    /// How many rules were named.
    named: usize,
}

/// What Ingresses become.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Translation {
    /// Nothing where there are no hosts.
    pub gateway: Option<GatewaySpec>,
    /// By namespace: for certificates that lie there.
    pub grants: BTreeMap<String, ReferenceGrantSpec>,
    /// By namespace and name of the Ingress.
    pub parts: BTreeMap<(String, String), Part>,
}

/// Whether an Ingress is served: `served` are classes by name, those of our controller among `classes` come to them.
pub fn is_served(ingress: &Ingress, classes: &[Arc<IngressClass>], served: &[String]) -> bool {
    let ours = |name: &str| {
        let class = classes.iter().find(|class| class.metadata.name.as_deref() == Some(name));
        let controller = class.and_then(|class| class.spec.as_ref()?.controller.as_deref());
        served.iter().any(|known| known == name) || controller == Some(GATEWAY_CONTROLLER)
    };
    let annotated = ingress.annotations().get(CLASS_ANNOTATION).cloned();
    match ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.clone()).or(annotated) {
        Some(name) => ours(&name),
        None => {
            let is_default =
                |class: &&Arc<IngressClass>| class.annotations().get(IS_DEFAULT).is_some_and(|value| value == "true");
            classes.iter().filter(is_default).any(|class| ours(&class.name_any()))
        }
    }
}

/// Translates all Ingresses of a class.
pub fn translate(ingresses: &[Arc<Ingress>], options: &Options) -> Translation {
    let mut oldest_first: Vec<&Arc<Ingress>> = ingresses.iter().collect();
    oldest_first.sort_by_cached_key(|i| (i.creation_timestamp().map(|time| time.0), i.namespace(), i.name_any()));
    let mut wishes: Vec<Wish> = oldest_first.into_iter().map(Wish::read).collect();
    let hosts = merge(&mut wishes, options.default_certificate.as_ref());
    let mut translation = Translation::default();
    entry::gateway(options, &hosts, &mut translation);
    for (at, wish) in wishes.iter().enumerate() {
        let mut part = Part {
            grpc: wish.grpc,
            backend_tls: wish.backend_tls,
            trusts: wish.trusts.clone(),
            key: wish.key.clone(),
            findings: wish.findings.clone(),
            ..Part::default()
        };
        let of_all = wish.steps.iter().filter(|step| steps::for_host(step, "").is_none());
        part.steps.extend(of_all.map(|step| Step { rules: Vec::new(), step: step.clone() }));
        for (name, host) in &hosts {
            routes(options, (at, wish), (name, host), &mut part);
        }
        if let Some(service) = wish.stand_in.clone() {
            // At its first port.
            let stand_in = rules::backend(&mut part, &Backend { service, port: Port::Name(String::new()) });
            part.stand_in = Some(stand_in);
        }
        if wish.closed() {
            let names =
                part.routes.iter().flat_map(|route| route.spec.rules.iter().filter_map(|rule| rule.name.clone()));
            part.closed = names.collect();
        }
        translation.parts.insert((wish.namespace.clone(), wish.name.clone()), part);
    }
    translation
}

/// The routes of an Ingress at a host.
fn routes(options: &Options, (at, wish): (usize, &Wish), (name, host): (&str, &Host), part: &mut Part) {
    let ends = host.certificate.is_some() && host.passes.is_none();
    let schemes: &[&str] = if ends { &["http", "https"] } else { &["http"] };
    if let Some(to) = host.moved.as_ref().filter(|to| wish.www && wish.paths.iter().any(|wished| wished.host == **to)) {
        let to = HTTPRequestRedirect {
            hostname: Some(to.clone()),
            status_code: Some(308),
            ..HTTPRequestRedirect::default()
        };
        put(options, wish, name, schemes, vec![redirect(HTTPRouteMatch::default(), to)], part);
        return;
    }
    let owned: Vec<&Owned> = host.paths.iter().filter(|path| path.owner == at).collect();
    if owned.is_empty() {
        return;
    }
    let to_https = wish.always_to_https || wish.to_https && host.has_own;
    let mut writing = Writing { wish, host, part };
    if let Some(passed) = host.passes.map(|at| &host.paths[at]).filter(|path| path.owner == at && !wish.closed()) {
        let to = rules::backend(writing.part, &wish.paths[passed.at].backend);
        let rule = L4Rule { name: None, backend_refs: vec![BackendRef { target: to.target, weight: None }] };
        let spec = TLSRouteSpec {
            parent_refs: entry::parents(options, name, &[entry::PASSED]),
            hostnames: vec![name.to_owned()],
            rules: vec![rule],
            ..TLSRouteSpec::default()
        };
        writing.part.passed.push(spec);
    }
    if let Some(to) = &wish.moved {
        let rules = writing.sent(&owned, to);
        return put(options, wish, name, schemes, rules, part);
    }
    if let Some(rule) = writing.root() {
        put(options, wish, name, schemes, vec![rule], writing.part);
    }
    let mut rest = schemes;
    if to_https {
        let to = HTTPRequestRedirect {
            scheme: Some("https".to_owned()),
            status_code: Some(308),
            ..HTTPRequestRedirect::default()
        };
        let rules = writing.sent(&owned, &to);
        put(options, wish, name, &["http"], rules, writing.part);
        rest = &schemes[1..];
    }
    if !rest.is_empty() {
        let rules = writing.served(&owned);
        if let Some(clients) = &host.clients {
            let names = rules.iter().filter_map(|rule| rule.name.clone()).collect();
            writing.part.steps.push(Step { rules: names, step: clients.step() });
        }
        writing.at_host(name, &rules);
        put(options, wish, name, rest, rules, part);
    }
}

/// Adds a route, named after its Ingress.
fn put(options: &Options, wish: &Wish, host: &str, schemes: &[&str], rules: Vec<HTTPRouteRule>, part: &mut Part) {
    let spec = HTTPRouteSpec {
        parent_refs: entry::parents(options, host, schemes),
        hostnames: Some(host).filter(|host| !host.is_empty()).map(str::to_owned).into_iter().collect(),
        rules,
        ..HTTPRouteSpec::default()
    };
    let name = match part.routes.len() {
        0 => wish.name.clone(),
        before => format!("{}-{}", wish.name, before + 1),
    };
    part.routes.push(Route { name, spec });
}
