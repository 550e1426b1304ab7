//! Gateways and their listeners: which are served, where, with which certificates, and what is wrong with the others. Pure.
//!
//! In: GatewayClasses, Gateways, Secrets, grants, the ports that are ours. Out: drafts that routes attach to. Two claims to one port and host
//! name are settled by age. Source: Gateway API (Gateway, Listener), design §9 (shared ports).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::kinds::CLUSTER_SET_LABEL;
use atoll_api::kinds::gateway::{
    GATEWAY_CONTROLLER, GATEWAY_GROUP, Gateway, Listener, RouteGroupKind, SecretObjectReference,
};
use kube::ResourceExt as _;

use super::backend::Problem;
use super::build::{Input, Ports};
use super::grant::{From, To, permits};
use super::{Entry, Host, HostMap, Slot};
use crate::provider::PROVIDERS;
use crate::status::Verdict;
use crate::tls::{Certificate, Certificates};

/// A Gateway of ours.
#[derive(Debug)]
pub(crate) struct GatewayDraft {
    pub(crate) object: Arc<Gateway>,
    pub(crate) namespace: String,
    /// The cluster set whose services its routes reach.
    pub(crate) set: String,
    pub(crate) listeners: Vec<ListenerDraft>,
    /// Why it as a whole is not served.
    pub(crate) refused: Option<Problem>,
}

/// A listener of it.
#[derive(Debug)]
pub(crate) struct ListenerDraft {
    pub(crate) spec: Listener,
    pub(crate) port: u16,
    pub(crate) host: Option<Host>,
    pub(crate) slot: Option<Slot>,
    pub(crate) tls: bool,
    pub(crate) kinds: Vec<RouteGroupKind>,
    pub(crate) certificates: Vec<Arc<Certificate>>,
    pub(crate) accepted: Verdict,
    pub(crate) resolved: Verdict,
    pub(crate) conflicted: Verdict,
    /// How many routes are attached.
    pub(crate) attached: i32,
    pub(crate) routes: HostMap<Vec<Entry>>,
}

impl ListenerDraft {
    /// Whether it is served.
    pub(crate) fn is_programmed(&self) -> bool {
        self.slot.is_some()
            && self.accepted.status
            && !self.conflicted.status
            && !(self.tls && self.certificates.is_empty())
            && !self.kinds.is_empty()
    }
}

/// The Gateways of our classes, the oldest first, and the ports beside the shared ones that they want.
pub(super) fn gateways(input: &Input<'_>, certificates: &mut Certificates) -> (Vec<GatewayDraft>, BTreeSet<u16>) {
    let classes: BTreeSet<String> = input
        .objects
        .classes
        .iter()
        .filter(|c| c.spec.controller_name == GATEWAY_CONTROLLER)
        .map(|c| c.name_any())
        .collect();
    let ours = input.objects.gateways.iter().filter(|g| classes.contains(&g.spec.gateway_class_name));
    let mut ours: Vec<&Arc<Gateway>> = ours.collect();
    ours.sort_by_cached_key(|g| (g.creation_timestamp().map(|t| t.0), g.namespace(), g.name_any()));
    let mut drafts: Vec<GatewayDraft> = ours.into_iter().map(|g| gateway(input, g, certificates)).collect();
    let mut claims = Claims::default();
    for draft in &mut drafts {
        let name = format!("{}/{}", draft.namespace, draft.object.name_any());
        for listener in draft.listeners.iter_mut().filter(|l| l.accepted.status) {
            claims.claim(&name, listener);
        }
    }
    (drafts, claims.ports)
}

fn gateway(input: &Input<'_>, object: &Arc<Gateway>, certificates: &mut Certificates) -> GatewayDraft {
    let namespace = object.namespace().unwrap_or_default();
    let set = object.labels().get(CLUSTER_SET_LABEL).cloned();
    let set = set.unwrap_or_else(|| input.topology.settings.default_set.clone());
    let listeners = object.spec.listeners.iter().map(|l| listener(input, &namespace, l, certificates)).collect();
    let refused = addresses(input, object).err();
    GatewayDraft { object: Arc::clone(object), namespace, set, listeners, refused }
}

/// Whether the addresses wished for are among ours.
fn addresses(input: &Input<'_>, object: &Gateway) -> Result<(), Problem> {
    for wish in object.spec.addresses.iter().filter(|a| !a.value.is_empty()) {
        match wish.address_type.as_deref() {
            None | Some("IPAddress" | "Hostname") => {}
            Some(other) => {
                return Err(Problem::new("UnsupportedAddress", format!("address type `{other}` is not served")));
            }
        }
        if !input.addresses.contains(&wish.value) {
            let ours = input.addresses.join(", ");
            return Err(Problem::new("AddressNotUsable", format!("address {} is not one of ours: {ours}", wish.value)));
        }
    }
    Ok(())
}

fn listener(input: &Input<'_>, namespace: &str, spec: &Listener, certificates: &mut Certificates) -> ListenerDraft {
    let port = u16::try_from(spec.port).unwrap_or_default();
    let tls = spec.protocol == "HTTPS";
    let (slot, accepted) = match place(input.ports, spec, port) {
        Ok(slot) => (Some(slot), Verdict::new("Accepted", true, "Accepted", "the listener is served")),
        Err(problem) => (None, Verdict::new("Accepted", false, problem.reason, problem.message)),
    };
    let (kinds, mut resolved) = kinds(spec);
    let mut served = Vec::new();
    if tls && accepted.status {
        let refs = spec.tls.as_ref().map(|tls| tls.certificate_refs.as_slice()).unwrap_or_default();
        if refs.is_empty() {
            resolved = Verdict::new("ResolvedRefs", false, "InvalidCertificateRef", "names no certificate");
        }
        for reference in refs {
            match certificate(input, namespace, reference, certificates) {
                Ok((certificate, None)) => served.push(certificate),
                Ok((certificate, Some(stale))) => {
                    served.push(certificate);
                    resolved = Verdict::new("ResolvedRefs", false, stale.reason, stale.message);
                }
                Err(problem) => resolved = Verdict::new("ResolvedRefs", false, problem.reason, problem.message),
            }
        }
    }
    ListenerDraft {
        port,
        host: spec.hostname.as_deref().filter(|h| !h.is_empty()).map(Host::parse),
        slot,
        tls,
        kinds,
        certificates: served,
        accepted,
        resolved,
        conflicted: Verdict::new("Conflicted", false, "NoConflicts", "no other listener claims its port and host name"),
        attached: 0,
        routes: HostMap::default(),
        spec: spec.clone(),
    }
}

/// Where a listener is served.
fn place(ports: &Ports, spec: &Listener, port: u16) -> Result<Slot, Problem> {
    let tls = match spec.protocol.as_str() {
        "HTTP" => false,
        "HTTPS" if spec.tls.as_ref().and_then(|t| t.mode.as_deref()).is_none_or(|m| m == "Terminate") => true,
        "HTTPS" => return Err(Problem::new("UnsupportedProtocol", "HTTPS is always terminated here")),
        other => return Err(Problem::new("UnsupportedProtocol", format!("protocol `{other}` is not served"))),
    };
    let slot = match port {
        0 => return Err(Problem::new("PortUnavailable", "port 0 is none")),
        _ if port == 80 || port == ports.http => Slot::Http,
        _ if port == 443 || port == ports.https => Slot::Https,
        _ => Slot::Port(port),
    };
    match (slot, tls, ports.failed.get(&port)) {
        (Slot::Http, true, _) => {
            Err(Problem::new("PortUnavailable", format!("port {port} is shared for HTTP without TLS")))
        }
        (Slot::Https, false, _) => Err(Problem::new("PortUnavailable", format!("port {port} is shared for HTTPS"))),
        (Slot::Port(_), _, Some(why)) => Err(Problem::new("PortUnavailable", format!("port {port}: {why}"))),
        _ => Ok(slot),
    }
}

/// Kinds of routes that a listener takes, out of those that it allows.
fn kinds(spec: &Listener) -> (Vec<RouteGroupKind>, Verdict) {
    let ours = |kind: &str| PROVIDERS.iter().any(|p| p.kind == kind);
    let served =
        PROVIDERS.iter().map(|p| RouteGroupKind { group: Some(GATEWAY_GROUP.to_owned()), kind: p.kind.to_owned() });
    let fine = Verdict::new("ResolvedRefs", true, "ResolvedRefs", "everything that it names is there");
    let allowed = spec.allowed_routes.as_ref().map(|a| a.kinds.as_slice()).unwrap_or_default();
    if allowed.is_empty() {
        return (served.collect(), fine);
    }
    let is_ours = |k: &&RouteGroupKind| k.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP && ours(&k.kind);
    let taken = allowed.iter().filter(is_ours);
    let taken: Vec<_> =
        taken.map(|k| RouteGroupKind { group: Some(GATEWAY_GROUP.to_owned()), kind: k.kind.clone() }).collect();
    match allowed.iter().find(|k| !is_ours(k)) {
        Some(odd) => {
            let why = format!("routes of kind `{}` are not served for {}", odd.kind, spec.protocol);
            (taken, Verdict::new("ResolvedRefs", false, "InvalidRouteKinds", why))
        }
        None => (taken, fine),
    }
}

/// A certificate; with a problem where only an older one of that Secret can be used.
fn certificate(
    input: &Input<'_>,
    namespace: &str,
    reference: &SecretObjectReference,
    certificates: &mut Certificates,
) -> Result<(Arc<Certificate>, Option<Problem>), Problem> {
    let (group, kind) = (reference.group.as_deref().unwrap_or(""), reference.kind.as_deref().unwrap_or("Secret"));
    let at = reference.namespace.as_deref().unwrap_or(namespace);
    let invalid =
        |why: String| Problem::new("InvalidCertificateRef", format!("Secret `{at}/{}`: {why}", reference.name));
    if !(group.is_empty() && kind == "Secret") {
        return Err(invalid(format!("kind {kind} is not a Secret")));
    }
    let from = From { kind: "Gateway", namespace };
    if !permits(&input.objects.grants, from, To { group, kind, namespace: at, name: &reference.name }) {
        let why = format!("Secret `{at}/{}`: no ReferenceGrant there permits it", reference.name);
        return Err(Problem::new("RefNotPermitted", why));
    }
    let mut secrets = input.objects.secrets.iter();
    let secret = secrets.find(|s| s.name_any() == reference.name && s.namespace().as_deref() == Some(at));
    let secret = secret.ok_or_else(|| invalid("does not exist, or is not of type kubernetes.io/tls".to_owned()))?;
    match certificates.load(secret) {
        Ok(certificate) => Ok((certificate, None)),
        Err((why, Some(before))) => Ok((before, Some(invalid(format!("{why}; the one before is served"))))),
        Err((why, None)) => Err(invalid(why)),
    }
}

/// Who holds which port and host name; the first to claim keeps it.
#[derive(Default)]
struct Claims {
    hosts: BTreeMap<(Slot, Option<Host>), String>,
    tls: BTreeMap<Slot, (bool, String)>,
    ports: BTreeSet<u16>,
}

impl Claims {
    fn claim(&mut self, gateway: &str, listener: &mut ListenerDraft) {
        let Some(slot) = listener.slot else { return };
        let who = format!("{gateway} listener {}", listener.spec.name);
        let (tls, first) = self.tls.entry(slot).or_insert_with(|| (listener.tls, who.clone()));
        if *tls != listener.tls {
            let why = format!("port {}: another protocol is served there for {first}", listener.port);
            listener.conflicted = Verdict::new("Conflicted", true, "ProtocolConflict", why);
            return;
        }
        match self.hosts.get(&(slot, listener.host.clone())) {
            Some(holder) => {
                let why = format!("port and host name are held by {holder}");
                listener.conflicted = Verdict::new("Conflicted", true, "HostnameConflict", why);
            }
            None => drop(self.hosts.insert((slot, listener.host.clone()), who)),
        }
        if let Slot::Port(port) = slot {
            self.ports.insert(port);
        }
    }
}
