//! Gateways: their addresses, listeners (their own and those of ListenerSets), and what is wrong with the others. Pure.
//!
//! In: GatewayClasses, Gateways, ListenerSets, Secrets, grants, the ports that are ours. Out: drafts that routes attach to. Two claims to one
//! port and host name are settled by age. Source: Gateway API (Gateway).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::kinds::CLUSTER_SET_LABEL;
use atoll_api::kinds::gateway::{Gateway, ListenerSet, SecretObjectReference};
use kube::ResourceExt as _;

use super::address::allot;
use super::backend::Problem;
use super::build::{Input, Memory};
use super::claim::Claims;
use super::front::{self, Front, Targets, Wish};
use super::listener::{ListenerDraft, Owner, certificate, draft};
use super::{Mode, Protocol, Slot, set};
use crate::balancer;
use crate::ingress;
use crate::objects::{Name, age, name_of};
use crate::status::Verdict;
use crate::tls::{Certificate, Keys};

/// Why no Service of type LoadBalancer gets an address.
const NO_POOL: &str = "gateways have no addresses to give: set gateway.addresses";

/// A Gateway of ours.
#[derive(Debug)]
pub(crate) struct GatewayDraft {
    pub(crate) object: Arc<Gateway>,
    pub(crate) namespace: String,
    /// The cluster set whose services its routes reach.
    pub(crate) set: String,
    /// Addresses of its own; none: it shares the ports.
    pub(crate) addresses: Vec<IpAddr>,
    /// The Service before it, where each has one.
    pub(crate) front: Option<Front>,
    /// Its own listeners, then those of its sets, the oldest first.
    pub(crate) listeners: Vec<ListenerDraft>,
    pub(crate) sets: Vec<SetDraft>,
    /// Who it is to backends.
    pub(crate) client: Option<Arc<Certificate>>,
    /// Whether that could be found, where it was asked for.
    pub(crate) resolved: Option<Verdict>,
    /// Why it as a whole is not served.
    pub(crate) refused: Option<Problem>,
}

/// A ListenerSet of a Gateway.
#[derive(Debug)]
pub(crate) struct SetDraft {
    pub(crate) object: Arc<ListenerSet>,
    pub(crate) namespace: String,
    /// Why the Gateway does not take it.
    pub(crate) refused: Option<Problem>,
}

impl GatewayDraft {
    /// The listeners of its own (nothing), or of one of its sets.
    pub(crate) fn listeners_of(&self, set: Option<usize>) -> impl Iterator<Item = &ListenerDraft> {
        self.listeners.iter().filter(move |l| l.set == set)
    }
}

/// The Gateways of our classes, the oldest first, and the ports beside the shared ones that they want.
pub(super) fn gateways(input: &Input<'_>, memory: &mut Memory) -> (Vec<GatewayDraft>, BTreeSet<Slot>) {
    let classes: BTreeSet<String> =
        input.objects.classes.iter().filter(|c| input.fleet.takes(c)).map(|c| c.name_any()).collect();
    let ours = input.objects.gateways.iter().filter(|g| {
        ingress::is_ours(&***g) || balancer::is_ours(&***g) || classes.contains(&g.spec.gateway_class_name)
    });
    let mut ours: Vec<&Arc<Gateway>> = ours.collect();
    ours.sort_by_cached_key(|gateway| age(&***gateway));
    let given = if input.pool.is_empty() {
        let wish = |g: &Gateway| match balancer::is_ours(g) {
            true => Err(Problem::new("NoPool", NO_POOL)),
            false if input.service => chosen(g),
            false => shared(input, g),
        };
        ours.iter().map(|g| wish(g).map(|()| Vec::new())).collect()
    } else {
        allot(input.pool, &ours, &input.objects.balancers, &mut memory.allotted)
    };
    let each = ours.into_iter().zip(given).map(|(g, given)| gateway(input, g, given, &mut memory.keys));
    let mut drafts: Vec<GatewayDraft> = each.collect();
    settle_fronts(&mut drafts, &mut memory.targets, input.ports.http3);
    let mut claims = Claims::default();
    for draft in &mut drafts {
        let name = format!("{}/{}", draft.namespace, draft.object.name_any());
        for listener in draft.listeners.iter_mut().filter(|l| l.accepted.status) {
            claims.claim(&name, listener);
        }
        unbound(input, draft);
    }
    let mut wanted = claims.ports;
    let failed = input.ports.failed.keys();
    wanted.extend(failed.filter(|slot| drafts.iter().flat_map(|d| &d.listeners).any(|l| l.wished.contains(slot))));
    (drafts, wanted)
}

/// Settles which ports the Services before Gateways have.
fn settle_fronts(drafts: &mut [GatewayDraft], before: &mut BTreeMap<Name, Targets>, http3: bool) {
    let each = drafts.iter_mut().filter_map(|draft| {
        let ports = draft.listeners.iter().filter_map(|l| l.port_wanted).collect();
        let secure =
            draft.listeners.iter().filter(|l| http3 && l.protocol == Protocol::Tls && l.mode == Mode::Requests);
        let twins = secure.filter_map(|l| l.port_wanted).map(|(_, port)| port).collect();
        Some((name_of(&*draft.object), draft.front.as_mut()?, Wish { ports, twins }))
    });
    front::settle(each.collect(), before);
}

/// Whether the addresses wished for are such as the Service of a Gateway may be asked for.
fn chosen(object: &Gateway) -> Result<(), Problem> {
    let odd = object.spec.addresses.iter().filter_map(|a| a.address_type.as_deref()).find(|kind| *kind != "IPAddress");
    let problem = |kind| Problem::new("UnsupportedAddress", format!("address type `{kind}` is not served"));
    odd.map_or(Ok(()), |kind| Err(problem(kind)))
}

/// An address that is none of this machine's makes a Gateway as a whole unusable.
fn unbound(input: &Input<'_>, draft: &mut GatewayDraft) {
    let wished = draft.listeners.iter().flat_map(|l| &l.wished);
    let foreign = wished.filter_map(|slot| input.ports.failed.get(slot)).find(|unopened| unopened.foreign);
    if let (Some(unopened), None) = (foreign, &draft.refused) {
        draft.refused = Some(Problem::new("AddressNotUsable", unopened.why.clone()));
    }
}

fn gateway(
    input: &Input<'_>,
    object: &Arc<Gateway>,
    given: Result<Vec<IpAddr>, Problem>,
    keys: &mut Keys,
) -> GatewayDraft {
    let namespace = object.namespace().unwrap_or_default();
    let set = object.labels().get(CLUSTER_SET_LABEL).cloned();
    let set = set.unwrap_or_else(|| input.topology.settings.default_set.clone());
    let parameters = object.spec.infrastructure.as_ref().and_then(|i| i.parameters_ref.as_ref());
    let (addresses, refused) = match (given, parameters) {
        (Err(problem), _) => (Vec::new(), Some(problem)),
        (Ok(addresses), None) => (addresses, None),
        (Ok(addresses), Some(_)) => {
            (addresses, Some(Problem::new("InvalidParameters", "this controller takes no parameters")))
        }
    };
    // Ingresses stay at the shared ports, and Services have no Service before them.
    let stays = ingress::is_ours(&**object) || balancer::is_ours(&**object);
    let front = (input.service && !stays).then(|| Front::of(input.objects, object));
    let sets = set::sets(input.objects, object);
    let name = object.name_any();
    let own = Owner {
        gateway: object,
        kind: "Gateway",
        namespace: &namespace,
        name: &name,
        addresses: &addresses,
        front: front.as_ref(),
    };
    let mut listeners: Vec<ListenerDraft> =
        object.spec.listeners.iter().map(|spec| draft(input, own, None, spec, keys)).collect();
    for (at, set) in sets.iter().enumerate().filter(|(_, set)| set.refused.is_none()) {
        let name = set.object.name_any();
        let owner = Owner { kind: "ListenerSet", namespace: &set.namespace, name: &name, ..own };
        let added = set.object.spec.listeners.iter().map(|spec| draft(input, owner, Some(at), spec, keys));
        listeners.extend(added);
    }
    let wanted = object.spec.tls.as_ref().and_then(|t| t.backend.as_ref()?.client_certificate_ref.as_ref());
    let (client, resolved) = wanted.map(|r| client(input, &namespace, r, keys)).unzip();
    GatewayDraft {
        object: Arc::clone(object),
        namespace,
        set,
        addresses,
        front,
        listeners,
        sets,
        client: client.flatten(),
        resolved,
        refused,
    }
}

/// Who the Gateway is to backends, and the condition that says so.
fn client(
    input: &Input<'_>,
    namespace: &str,
    reference: &SecretObjectReference,
    keys: &mut Keys,
) -> (Option<Arc<Certificate>>, Verdict) {
    match certificate(input, "Gateway", namespace, reference, keys) {
        Ok((found, None)) => {
            (Some(found), Verdict::new("ResolvedRefs", true, "ResolvedRefs", "the client certificate is there"))
        }
        Ok((found, Some(stale))) => {
            (Some(found), Verdict::new("ResolvedRefs", false, "InvalidClientCertificateRef", stale.message))
        }
        Err(Problem { reason: "RefNotPermitted", message }) => {
            (None, Verdict::new("ResolvedRefs", false, "RefNotPermitted", message))
        }
        Err(problem) => (None, Verdict::new("ResolvedRefs", false, "InvalidClientCertificateRef", problem.message)),
    }
}

/// Whether the addresses wished for are among those of the shared ports.
fn shared(input: &Input<'_>, object: &Gateway) -> Result<(), Problem> {
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
