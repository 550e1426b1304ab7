//! A translation as objects that people can apply, and notes of what they say otherwise than the Ingresses did. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::paths::BEGINS;
use super::read::Finding;
use super::rules::port_name;
use super::steps::SERVICE;
use super::table::way;
use super::{Options, Part, Route, Translation};
use crate::kinds::gateway::{BackendObjectReference, GATEWAY_GROUP, GatewaySpec, HTTPRouteSpec, TLSRouteSpec};

/// A Gateway has at most so many listeners.
const LISTENERS_MAX: usize = 64;
/// A policy has at most so many targets.
const TARGETS_MAX: usize = 16;

/// What is printed.
#[derive(Debug, Default)]
pub struct Export {
    /// Gateways, ReferenceGrants, HTTPRoutes, RoutePolicies.
    pub objects: Vec<Value>,
    /// By the Ingress: what has no target, or another meaning.
    pub notes: Vec<(String, Finding)>,
}

/// Finds the number of a port: namespace, Service, name; without a name the first.
pub type PortNamed<'a> = dyn Fn(&str, &str, &str) -> Option<i32> + 'a;

/// Makes objects of a translation.
pub fn export(translation: &Translation, options: &Options, port: &PortNamed<'_>) -> Export {
    let mut out = Export::default();
    let places = gateways(translation, options, &mut out);
    for (namespace, spec) in &translation.grants {
        out.objects.push(json!({"apiVersion": format!("{GATEWAY_GROUP}/v1"), "kind": "ReferenceGrant",
            "metadata": {"name": options.name, "namespace": namespace}, "spec": spec}));
    }
    for ((namespace, name), part) in &translation.parts {
        let mut writing = Writing { namespace, ingress: format!("{namespace}/{name}"), out: &mut out };
        for finding in &part.findings {
            writing.out.notes.push((writing.ingress.clone(), finding.clone()));
        }
        for route in &part.routes {
            writing.route(part, route, &places, port);
        }
        for (at, spec) in part.passed.iter().enumerate() {
            writing.passed(part, (at, spec), name, &places, port);
        }
        writing.others(part);
        writing.policies(name, part, port);
        writing.backends(part);
    }
    out
}

/// Prints the Gateways; returns which of them has each listener.
fn gateways(translation: &Translation, options: &Options, out: &mut Export) -> BTreeMap<String, String> {
    let mut places = BTreeMap::new();
    let Some(spec) = &translation.gateway else { return places };
    for (at, listeners) in spec.listeners.chunks(LISTENERS_MAX).enumerate() {
        let name = if at == 0 { options.name.clone() } else { format!("{}-{}", options.name, at + 1) };
        places.extend(listeners.iter().map(|listener| (listener.name.clone(), name.clone())));
        let spec = GatewaySpec { listeners: listeners.to_vec(), ..spec.clone() };
        out.objects.push(json!({"apiVersion": format!("{GATEWAY_GROUP}/v1"), "kind": "Gateway",
            "metadata": {"name": name, "namespace": options.namespace}, "spec": spec}));
    }
    places
}

struct Writing<'a> {
    namespace: &'a str,
    ingress: String,
    out: &'a mut Export,
}

impl Writing<'_> {
    fn note(&mut self, what: &str, why: String, way: &'static str) {
        let finding = Finding { what: what.to_owned(), why, way, closes: false };
        let note = (self.ingress.clone(), finding);
        if !self.out.notes.contains(&note) {
            self.out.notes.push(note);
        }
    }

    fn route(&mut self, part: &Part, route: &Route, places: &BTreeMap<String, String>, port: &PortNamed<'_>) {
        let mut spec: HTTPRouteSpec = route.spec.clone();
        for parent in &mut spec.parent_refs {
            if let Some(place) = parent.section_name.as_ref().and_then(|section| places.get(section)) {
                parent.name.clone_from(place);
            }
        }
        for rule in &mut spec.rules {
            for path in rule.matches.iter_mut().filter_map(|m| m.path.as_mut()) {
                if path.match_type.as_deref() == Some(BEGINS) {
                    path.match_type = Some("PathPrefix".to_owned());
                    let value = path.value.clone().unwrap_or_default();
                    let why = format!("`{value}` is matched by segments; under nginx `{value}x` began with it, too");
                    self.note(
                        "pathType ImplementationSpecific",
                        why,
                        "HTTPRoute matches of path type RegularExpression",
                    );
                }
            }
            for backend in &mut rule.backend_refs {
                self.number(part, &mut backend.target, port);
            }
        }
        self.out.objects.push(json!({"apiVersion": format!("{GATEWAY_GROUP}/v1"), "kind": "HTTPRoute",
            "metadata": {"name": route.name, "namespace": self.namespace}, "spec": spec}));
    }

    /// Finds the number of a port that is named.
    fn number(&mut self, part: &Part, target: &mut BackendObjectReference, port: &PortNamed<'_>) {
        let Some(name) = port_name(&part.port_names, target.port) else { return };
        target.port = port(self.namespace, &target.name, name);
        if target.port.is_none() {
            let why = format!(
                "Service `{}` is not in the files, so the number of its port `{name}` is not known",
                target.name
            );
            self.note("backend.service.port.name", why, "HTTPRoute backendRefs with the number of the port");
        }
    }

    /// TLS that is passed on.
    fn passed(
        &mut self,
        part: &Part,
        (at, spec): (usize, &TLSRouteSpec),
        ingress: &str,
        places: &BTreeMap<String, String>,
        port: &PortNamed<'_>,
    ) {
        let mut spec = spec.clone();
        for parent in &mut spec.parent_refs {
            if let Some(place) = parent.section_name.as_ref().and_then(|section| places.get(section)) {
                parent.name.clone_from(place);
            }
        }
        for backend in spec.rules.iter_mut().flat_map(|rule| &mut rule.backend_refs) {
            self.number(part, &mut backend.target, port);
        }
        let name = if at == 0 { ingress.to_owned() } else { format!("{ingress}-{}", at + 1) };
        self.out.objects.push(json!({"apiVersion": format!("{GATEWAY_GROUP}/v1"), "kind": "TLSRoute",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec}));
    }

    /// What objects of the Gateway API do not say.
    fn others(&mut self, part: &Part) {
        if let Some(stand_in) = &part.stand_in {
            let why = format!("`{}` takes no requests where the backend has no endpoint", stand_in.target.name);
            self.note("default-backend", why, way("default-backend"));
        }
        if part.key.is_some() {
            let why = "a TrafficPolicy says it of the Service: balance.method RingHash, hashOn a header or a cookie";
            self.note("upstream-hash-by", why.to_owned(), way("upstream-hash-by"));
        }
        if let Some(trusts) = &part.trusts {
            let why = format!(
                "a BackendTLSPolicy trusts a ConfigMap with the `ca.crt` of Secret `{}`, hostname `{}`; what is shown to backends is of the Gateway",
                trusts.secret, trusts.name
            );
            self.note("proxy-ssl-secret", why, way("proxy-ssl-secret"));
        }
    }

    /// The filters: of all rules on the routes, of some on these.
    fn policies(&mut self, ingress: &str, part: &Part, port: &PortNamed<'_>) {
        let mut by_rules: BTreeMap<&[String], Vec<Value>> = BTreeMap::new();
        for step in &part.steps {
            let mut written = json!(step.step);
            self.pages(&mut written, port);
            by_rules.entry(&step.rules).or_default().push(written);
        }
        if !part.closed.is_empty() {
            // Nobody gets in, as with the Ingress.
            let nobody = json!({"filter": "deny", "cidrs": ["0.0.0.0/0", "::/0"]});
            by_rules.entry(&part.closed).or_default().push(nobody);
        }
        let mut made = 0;
        for (rules, filters) in by_rules {
            let targets = targets(part, rules);
            for targets in targets.chunks(TARGETS_MAX) {
                made += 1;
                let name = if made == 1 { ingress.to_owned() } else { format!("{ingress}-{made}") };
                self.out.objects.push(json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "RoutePolicy",
                    "metadata": {"name": name, "namespace": self.namespace},
                    "spec": {"targetRefs": targets, "filters": filters}}));
            }
        }
    }

    /// Names the Services that give pages as people name them.
    fn pages(&mut self, step: &mut Value, port: &PortNamed<'_>) {
        for page in step.get_mut("pages").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(backend) = page.get_mut("backendRef").and_then(Value::as_object_mut) else { continue };
            if backend.get("kind").and_then(Value::as_str) != Some(SERVICE) {
                continue;
            }
            backend.remove("kind");
            let name = backend.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            match port(self.namespace, &name, "") {
                Some(number) => drop(backend.insert("port".to_owned(), json!(number))),
                None => {
                    backend.insert("port".to_owned(), json!(80));
                    let why = format!("Service `{name}` is not in the files, so that its first port is 80 is a guess");
                    self.note("default-backend", why, way("default-backend"));
                }
            }
        }
    }

    fn backends(&mut self, part: &Part) {
        if part.grpc {
            let why = "its Services' ports need appProtocol kubernetes.io/h2c".to_owned();
            self.note("backend-protocol", why, "GRPCRoute, or appProtocol of the Service's port");
        }
        if part.backend_tls && part.trusts.is_none() {
            self.note(
                "backend-protocol",
                "its Services need a policy that says whom to trust".to_owned(),
                "BackendTLSPolicy",
            );
        }
    }
}

fn targets(part: &Part, rules: &[String]) -> Vec<Value> {
    let of = |route: &str| json!({"group": GATEWAY_GROUP, "kind": "HTTPRoute", "name": route});
    let served = part.routes.iter().filter(|route| route.spec.rules.iter().any(|rule| rule.name.is_some()));
    if rules.is_empty() {
        return served.map(|route| of(&route.name)).collect();
    }
    let each = served.flat_map(|route| {
        let named = route.spec.rules.iter().filter_map(|rule| rule.name.as_ref()).filter(|name| rules.contains(name));
        named.map(|name| {
            let mut target = of(&route.name);
            target["sectionName"] = json!(name);
            target
        })
    });
    each.collect()
}
