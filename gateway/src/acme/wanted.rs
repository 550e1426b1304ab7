//! Which certificates are to be ordered: for the listeners of objects that ask for it. Pure.
//!
//! In: drafts of Gateways, Ingresses. Out: one [`Wanted`] for each Secret that they name, with the hosts of all. What can't be ordered is
//! among them, with the reason. Source: the annotation `kubernetes.io/tls-acme`, as kube-lego and cert-manager read it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::settings::Proving;
use super::standing::{Kind, Owner};
use crate::objects::{Name, name_of};
use crate::table::{GatewayDraft, Input, ListenerDraft, Protocol};
use crate::{balancer, ingress};

/// By which an object asks for it.
const ASKS: &str = "kubernetes.io/tls-acme";
/// CAs issue for no more names at once.
const HOSTS_MAX: usize = 100;
/// Where CAs look (RFC 8555 §8.3).
const PORT: u16 = 80;

/// A certificate that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// Where it is to be.
    pub(crate) secret: Name,
    pub(crate) hosts: BTreeSet<String>,
    pub(crate) owners: BTreeSet<Owner>,
    /// What is there.
    pub(crate) held: Option<Arc<Secret>>,
    /// Why it is not ordered.
    pub(crate) problem: Option<String>,
}

/// Everything that is wanted; nothing before the first table.
pub(crate) type Ordered = Option<Arc<Vec<Wanted>>>;

/// Whether an object asks for its certificates to be ordered.
pub(crate) fn asks(object: &impl ResourceExt) -> bool {
    object.annotations().get(ASKS).is_some_and(|said| said == "true")
}

/// Everything that is wanted.
pub(crate) fn wanted(gateways: &[GatewayDraft], input: &Input<'_>, by: Proving) -> Vec<Wanted> {
    let mut all = All { input, by, wanted: BTreeMap::new() };
    let ours = |draft: &&GatewayDraft| !ingress::is_ours(&*draft.object) && !balancer::is_ours(&*draft.object);
    for draft in gateways.iter().filter(ours).filter(|draft| draft.refused.is_none()) {
        all.gateway(draft);
    }
    for name in input.objects.derived.live.keys() {
        if let Some(object) = input.objects.ingresses.at(name).filter(|object| asks(&***object)) {
            let owner = Owner { kind: Kind::Ingress, name: name.clone(), uid: object.uid() };
            for tls in object.spec.iter().flat_map(|spec| spec.tls.iter().flatten()) {
                let Some(secret) = tls.secret_name.as_ref().filter(|name| !name.is_empty()) else { continue };
                let hosts = tls.hosts.iter().flatten().filter(|host| !host.is_empty()).map(|h| h.to_ascii_lowercase());
                all.one((name.0.clone(), secret.clone()), hosts.collect(), owner.clone(), None);
            }
        }
    }
    let mut wanted: Vec<Wanted> = all.wanted.into_values().collect();
    for one in &mut wanted {
        one.problem = one.problem.take().or_else(|| hindered(&one.hosts, by));
    }
    wanted
}

struct All<'a> {
    input: &'a Input<'a>,
    by: Proving,
    wanted: BTreeMap<Name, Wanted>,
}

impl All<'_> {
    fn gateway(&mut self, draft: &GatewayDraft) {
        let unreachable = self.unreachable(draft);
        for listener in draft.listeners.iter().filter(|l| l.ends_tls() && l.accepted.status) {
            let owner = match listener.set.and_then(|at| draft.sets.get(at)) {
                Some(set) if asks(&*set.object) => {
                    Owner { kind: Kind::Set, name: name_of(&*set.object), uid: set.object.uid() }
                }
                None if listener.set.is_none() && asks(&*draft.object) => {
                    Owner { kind: Kind::Gateway, name: name_of(&*draft.object), uid: draft.object.uid() }
                }
                _ => continue,
            };
            for reference in listener.spec.tls.iter().flat_map(|tls| &tls.certificate_refs) {
                let is_secret = reference.group.as_deref().is_none_or(str::is_empty)
                    && reference.kind.as_deref().is_none_or(|kind| kind == "Secret");
                let at = reference.namespace.as_ref().unwrap_or(&listener.namespace);
                let foreign = (*at != listener.namespace).then(|| {
                    format!("it is in another namespace than {owner}: a certificate is ordered only into its own")
                });
                if is_secret {
                    let problem = foreign.or_else(|| unreachable.clone());
                    self.one((at.clone(), reference.name.clone()), hosts(listener), owner.clone(), problem);
                }
            }
        }
    }

    /// Why no CA finds an answer at the addresses of a Gateway.
    fn unreachable(&self, draft: &GatewayDraft) -> Option<String> {
        // The shared port is open whatever Gateways say, and records are asked for elsewhere.
        let shares = draft.addresses.is_empty() && draft.front.is_none() || self.by != Proving::Http;
        let open = |l: &ListenerDraft| l.protocol == Protocol::Http && l.port == PORT && l.is_programmed();
        (!shares && !draft.listeners.iter().any(open))
            .then(|| format!("a CA looks at port {PORT}: the Gateway needs a listener of HTTP there"))
    }

    fn one(&mut self, secret: Name, hosts: BTreeSet<String>, owner: Owner, problem: Option<String>) {
        let held = self.input.objects.secrets.at(&secret).cloned();
        let wanted = self.wanted.entry(secret.clone()).or_insert_with(|| Wanted {
            secret,
            hosts: BTreeSet::new(),
            owners: BTreeSet::new(),
            held,
            problem: None,
        });
        wanted.hosts.extend(hosts);
        wanted.owners.insert(owner);
        wanted.problem = wanted.problem.take().or(problem);
    }
}

/// The hosts of a listener; of one that is for all, those of its routes.
fn hosts(listener: &ListenerDraft) -> BTreeSet<String> {
    match &listener.host {
        Some(host) => BTreeSet::from([host.to_string()]),
        None => {
            let all = listener.routes.names().chain(listener.streams.names());
            all.filter(|host| host != "*").take(HOSTS_MAX + 1).collect()
        }
    }
}

/// Why no CA is asked for these names.
fn hindered(hosts: &BTreeSet<String>, by: Proving) -> Option<String> {
    if hosts.is_empty() {
        return Some("no host is known: give the listener a hostname, or attach a route that has one".to_owned());
    }
    if hosts.len() > HOSTS_MAX {
        return Some(format!("it has more than {HOSTS_MAX} hosts: share them among several Secrets"));
    }
    let wild = hosts.iter().find(|host| host.starts_with("*.") && by == Proving::Http);
    wild.map(|host| format!("`{host}`: no CA proves a wildcard by http-01; set gateway.acme.challenge to dns-01"))
}
