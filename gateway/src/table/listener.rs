//! One listener: where it is served, what it takes, with which certificates, whom it trusts. Pure.
//!
//! In: a listener as a Gateway or a ListenerSet writes it. Out: a draft that routes attach to, with its conditions. Source: Gateway API
//! (Listener).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::ingress::option;
use atoll_api::kinds::gateway::{GATEWAY_GROUP, Gateway, Listener, RouteGroupKind, SecretObjectReference};

use super::backend::Problem;
use super::build::{Input, Ports};
use super::clients::{NO_AUTHORITY, check_clients};
use super::front::{Front, Port};
use super::grant::{From, To, permits};
use super::{Host, HostMap, Level, Mode, Protocol, Slot, StreamRule};
use crate::ingress;
use crate::kinds::KINDS;
use crate::status::Verdict;
use crate::tls::{Certificate, ClientCheck, Keys, Spoken};

/// A listener of a Gateway or of one of its sets.
#[derive(Debug)]
pub(crate) struct ListenerDraft {
    /// Gateway or set, and listener: for logs and metrics.
    pub(super) id: Arc<str>,
    pub(crate) spec: Listener,
    /// The set that it is of; nothing: the Gateway's own.
    pub(crate) set: Option<usize>,
    /// Of the Gateway or the set.
    pub(crate) namespace: String,
    pub(crate) port: u16,
    pub(crate) host: Option<Host>,
    /// Where it is served.
    pub(crate) slots: Vec<Slot>,
    /// Where it is to be served, whether it can or not.
    pub(crate) wished: Vec<Slot>,
    /// The port that it is to be reached at, where it can be served at all: whether it is UDP, and its number.
    pub(super) port_wanted: Option<Port>,
    /// The Service before the Gateway does not have its port yet.
    pub(crate) pending: bool,
    pub(crate) protocol: Protocol,
    pub(crate) mode: Mode,
    pub(crate) kinds: Vec<RouteGroupKind>,
    pub(crate) certificates: Vec<Arc<Certificate>>,
    /// Which TLS is spoken.
    spoken: Spoken,
    /// How certificates of clients are checked.
    pub(crate) clients: Option<ClientCheck>,
    pub(crate) accepted: Verdict,
    pub(crate) resolved: Verdict,
    pub(crate) conflicted: Verdict,
    /// How many routes are attached.
    pub(crate) attached: i32,
    /// Where the table has it.
    pub(super) served: Vec<Slot>,
    /// Entries by host name; those of `unsorted` stand in no order yet.
    pub(crate) routes: Arc<HostMap<Level>>,
    pub(crate) unsorted: BTreeSet<Option<Host>>,
    /// Those that could take a host name, the oldest first.
    pub(crate) streams: HostMap<Vec<Arc<StreamRule>>>,
}

/// Whose listener it is.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) gateway: &'a Gateway,
    /// Gateway or ListenerSet.
    pub(super) kind: &'static str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) addresses: &'a [IpAddr],
    /// The Service before the Gateway.
    pub(super) front: Option<&'a Front>,
}

impl ListenerDraft {
    /// Whether it is served.
    pub(crate) fn is_programmed(&self) -> bool {
        let lacks_certificate = self.ends_tls() && self.certificates.is_empty();
        let hindered = self.conflicted.status || lacks_certificate || self.slots.is_empty() || self.kinds.is_empty();
        self.accepted.status && !hindered
    }

    /// Whether TLS ends here.
    pub(crate) fn ends_tls(&self) -> bool {
        self.protocol == Protocol::Tls && self.mode != Mode::Pass
    }

    /// How TLS is spoken, where it ends here.
    pub(super) fn server(&self, keys: &mut Keys) -> Option<Arc<rustls::ServerConfig>> {
        let http = self.mode == Mode::Requests;
        let clients = self.clients.as_ref();
        self.ends_tls().then(|| keys.server(&self.certificates, &self.spoken, http, clients)).flatten()
    }

    /// Whether it may ask clients for certificates: what a Gateway says of that is for HTTPS.
    fn checks(&self) -> bool {
        let named = self.spec.tls.as_ref().is_some_and(|tls| tls.options.contains_key(option::CLIENT_CA));
        self.mode == Mode::Requests || named
    }
}

/// Drafts a listener.
pub(super) fn draft(
    input: &Input<'_>,
    owner: Owner<'_>,
    set: Option<usize>,
    spec: &Listener,
    keys: &mut Keys,
) -> ListenerDraft {
    let port = u16::try_from(spec.port).unwrap_or_default();
    let fine = |kind| Verdict::new(kind, true, kind, "everything that it names is there");
    let mut listener = ListenerDraft {
        id: format!("{}/{}/{}", owner.namespace, owner.name, spec.name).into(),
        spec: spec.clone(),
        set,
        namespace: owner.namespace.to_owned(),
        port,
        host: None,
        slots: Vec::new(),
        wished: Vec::new(),
        port_wanted: None,
        pending: false,
        protocol: Protocol::Http,
        mode: Mode::Requests,
        kinds: Vec::new(),
        certificates: Vec::new(),
        spoken: Spoken::default(),
        clients: None,
        accepted: Verdict::new("Accepted", true, "Accepted", "the listener is valid"),
        resolved: fine("ResolvedRefs"),
        conflicted: Verdict::new("Conflicted", false, "NoConflicts", "no other listener claims its port and host name"),
        attached: 0,
        served: Vec::new(),
        routes: Arc::default(),
        unsorted: BTreeSet::new(),
        streams: HostMap::default(),
    };
    let refuse = |problem: Problem| Verdict::new("Accepted", false, problem.reason, problem.message);
    match meaning(spec) {
        Ok((protocol, mode, spoken)) => (listener.protocol, listener.mode, listener.spoken) = (protocol, mode, spoken),
        Err(problem) => {
            listener.accepted = refuse(problem);
            return listener;
        }
    }
    // TCP and UDP have no host names.
    if matches!(listener.protocol, Protocol::Http | Protocol::Tls) {
        let parse = if ingress::is_ours(owner.gateway) { Host::of_ingress } else { Host::parse };
        listener.host = spec.hostname.as_deref().filter(|h| !h.is_empty()).map(parse);
    }
    (listener.kinds, listener.resolved) = kinds(spec);
    listener.port_wanted = (port > 0).then_some((listener.protocol == Protocol::Udp, port));
    match place(input.ports, listener.protocol, port, owner) {
        Ok(slots) => listener.wished = slots,
        Err(problem) => listener.accepted = refuse(problem),
    }
    listener.pending = listener.accepted.status && listener.wished.is_empty();
    let failed = listener.wished.iter().find_map(|slot| Some((slot, input.ports.failed.get(slot)?)));
    match failed {
        Some((slot, unopened)) => {
            listener.accepted = refuse(Problem::new("PortUnavailable", format!("port {slot}: {}", unopened.why)));
        }
        None => listener.slots.clone_from(&listener.wished),
    }
    if listener.ends_tls() && listener.accepted.status {
        certify(input, owner, &mut listener, keys);
        if listener.checks() {
            check_clients(input, owner, &mut listener, keys);
        }
    }
    listener
}

/// Looks its certificates up again; whatever else it is made of stays.
pub(super) fn recertify(input: &Input<'_>, gateway: &Gateway, listener: &mut ListenerDraft, keys: &mut Keys) {
    let unchecked = listener.accepted.reason == NO_AUTHORITY;
    if !listener.ends_tls() || !(listener.accepted.status || unchecked) {
        return;
    }
    listener.certificates.clear();
    (_, listener.resolved) = kinds(&listener.spec);
    let kind = if listener.set.is_some() { "ListenerSet" } else { "Gateway" };
    let namespace = listener.namespace.clone();
    let owner = Owner { gateway, kind, namespace: &namespace, name: "", addresses: &[], front: None };
    certify(input, owner, listener, keys);
    if listener.checks() {
        check_clients(input, owner, listener, keys);
    }
}

/// What the protocol, its TLS mode and options mean.
fn meaning(spec: &Listener) -> Result<(Protocol, Mode, Spoken), Problem> {
    let (protocol, mode) = spoken_as(spec)?;
    let refused = |why| Problem::new("UnsupportedValue", format!("tls.options: {why}"));
    let Some(options) = spec.tls.as_ref().map(|tls| &tls.options).filter(|_| protocol == Protocol::Tls) else {
        return Ok((protocol, mode, Spoken::default()));
    };
    if mode == Mode::Pass
        && let Some(name) = options.keys().find(|name| name.starts_with(option::OURS))
    {
        return Err(refused(format!("`{name}`: TLS that is passed on as it comes is not spoken here")));
    }
    Ok((protocol, mode, Spoken::read(options).map_err(refused)?))
}

fn spoken_as(spec: &Listener) -> Result<(Protocol, Mode), Problem> {
    let mode = spec.tls.as_ref().and_then(|t| t.mode.as_deref()).unwrap_or("Terminate");
    match (spec.protocol.as_str(), mode) {
        ("HTTP", _) => Ok((Protocol::Http, Mode::Requests)),
        ("HTTPS", "Terminate") => Ok((Protocol::Tls, Mode::Requests)),
        ("HTTPS", _) => Err(Problem::new("UnsupportedProtocol", "HTTPS is always terminated here")),
        ("TLS", "Terminate") => Ok((Protocol::Tls, Mode::Terminate)),
        ("TLS", "Passthrough") => Ok((Protocol::Tls, Mode::Pass)),
        ("TLS", other) => Err(Problem::new("UnsupportedValue", format!("TLS mode `{other}` is unknown"))),
        ("TCP", _) => Ok((Protocol::Tcp, Mode::Pass)),
        ("UDP", _) => Ok((Protocol::Udp, Mode::Pass)),
        (other, _) => Err(Problem::new("UnsupportedProtocol", format!("protocol `{other}` is not served"))),
    }
}

/// Where a listener is to be served.
fn place(ports: &Ports, protocol: Protocol, port: u16, owner: Owner<'_>) -> Result<Vec<Slot>, Problem> {
    let taken = |why: String| Err(Problem::new("PortUnavailable", why));
    if port == 0 {
        return taken("port 0 is none".to_owned());
    }
    let slot = if protocol == Protocol::Udp { Slot::Udp } else { Slot::Tcp };
    if let Some(front) = owner.front {
        let target = front.targets.get(&(protocol == Protocol::Udp, port));
        return Ok(target.map(|target| slot(None, *target)).into_iter().collect());
    }
    if !owner.addresses.is_empty() {
        return Ok(owner.addresses.iter().map(|ip| slot(Some(*ip), port)).collect());
    }
    match (protocol, port) {
        (Protocol::Http, 80) => Ok(vec![Slot::Http]),
        (Protocol::Http, _) if port == ports.http => Ok(vec![Slot::Http]),
        (Protocol::Tls, 443) => Ok(vec![Slot::Https]),
        (Protocol::Tls, _) if port == ports.https => Ok(vec![Slot::Https]),
        (Protocol::Http | Protocol::Tcp, _) if port == 443 || port == ports.https => {
            taken(format!("port {port} is shared for HTTPS"))
        }
        (Protocol::Tls | Protocol::Tcp, _) if port == 80 || port == ports.http => {
            taken(format!("port {port} is shared for HTTP without TLS"))
        }
        _ => Ok(vec![slot(None, port)]),
    }
}

/// Kinds of routes that a listener takes, out of those that it allows.
fn kinds(spec: &Listener) -> (Vec<RouteGroupKind>, Verdict) {
    let of_protocol = || KINDS.iter().filter(|p| p.protocols.contains(&spec.protocol.as_str()));
    let named = |kind: &str| RouteGroupKind { group: Some(GATEWAY_GROUP.to_owned()), kind: kind.to_owned() };
    let fine = Verdict::resolved();
    let allowed = spec.allowed_routes.as_ref().map(|a| a.kinds.as_slice()).unwrap_or_default();
    if allowed.is_empty() {
        return (of_protocol().map(|p| named(p.kind)).collect(), fine);
    }
    let is_ours = |k: &&RouteGroupKind| {
        k.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP && of_protocol().any(|p| p.kind == k.kind)
    };
    let taken = allowed.iter().filter(is_ours).map(|k| named(&k.kind)).collect();
    match allowed.iter().find(|k| !is_ours(k)) {
        Some(odd) => {
            let why = format!("routes of kind `{}` are not served for {}", odd.kind, spec.protocol);
            (taken, Verdict::new("ResolvedRefs", false, "InvalidRouteKinds", why))
        }
        None => (taken, fine),
    }
}

/// Finds the certificates of a listener.
fn certify(input: &Input<'_>, owner: Owner<'_>, listener: &mut ListenerDraft, keys: &mut Keys) {
    let refs = listener.spec.tls.as_ref().map(|tls| tls.certificate_refs.clone()).unwrap_or_default();
    let unresolved = |p: Problem| Verdict::new("ResolvedRefs", false, p.reason, p.message);
    if refs.is_empty() {
        listener.resolved = unresolved(Problem::new("InvalidCertificateRef", "names no certificate"));
    }
    for reference in &refs {
        match certificate(input, owner.kind, owner.namespace, reference, keys) {
            Ok((certificate, stale)) => {
                listener.certificates.push(certificate);
                listener.resolved = stale.map_or_else(|| listener.resolved.clone(), unresolved);
            }
            Err(problem) => listener.resolved = unresolved(problem),
        }
    }
}

/// A certificate; with a problem where only an older one of that Secret can be used.
pub(super) fn certificate(
    input: &Input<'_>,
    owner: &'static str,
    namespace: &str,
    reference: &SecretObjectReference,
    keys: &mut Keys,
) -> Result<(Arc<Certificate>, Option<Problem>), Problem> {
    let (group, kind) = (reference.group.as_deref().unwrap_or(""), reference.kind.as_deref().unwrap_or("Secret"));
    let at = reference.namespace.as_deref().unwrap_or(namespace);
    let invalid =
        |why: String| Problem::new("InvalidCertificateRef", format!("Secret `{at}/{}`: {why}", reference.name));
    if !(group.is_empty() && kind == "Secret") {
        return Err(invalid(format!("kind {kind} is not a Secret")));
    }
    let from = From { kind: owner, namespace };
    if !permits(&input.objects.grants, from, To { group, kind, namespace: at, name: &reference.name }) {
        let why = format!("Secret `{at}/{}`: no ReferenceGrant there permits it", reference.name);
        return Err(Problem::new("RefNotPermitted", why));
    }
    if let Some(over) = input.objects.over.certificates.get(&(at.to_owned(), reference.name.clone())) {
        return Err(invalid(over.to_string()));
    }
    let secret = input.objects.secrets.get(at, &reference.name);
    let secret = secret.ok_or_else(|| invalid("does not exist, or is not of type kubernetes.io/tls".to_owned()))?;
    match keys.load(secret) {
        Ok(certificate) => Ok((certificate, None)),
        Err((why, Some(before))) => Ok((before, Some(invalid(format!("{why}; the one before is served"))))),
        Err((why, None)) => Err(invalid(why)),
    }
}
