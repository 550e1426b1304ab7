//! Statuses of Gateways and their ListenerSets.

use atoll_api::kinds::Condition;
use atoll_api::kinds::gateway::{Gateway, GatewayAddress, GatewayStatus, ListenerSetStatus, ListenerStatus};
use kube::ResourceExt as _;

use super::Update;
use super::condition::{Verdict, merge};
use crate::acme::{self, Asker};
use crate::objects::{Kind, Name, name_of};
use crate::table::{GatewayDraft, Input, ListenerDraft, Mode, Protocol, SetDraft, behind, validation};

/// The condition that warns of clients that are let in without a certificate.
const INSECURE: &str = "InsecureFrontendValidationMode";

/// The condition that says that a listener is not answered by HTTP/3; absent where it is, or need not be.
const HTTP3: &str = "atoll.dev/HTTP3";

/// Why a listener behind a Service waits.
const UNPLACED: &str = "the Gateway's Service does not have the port yet";

/// The statuses of a Gateway and of its sets, where they say something else than before.
pub(super) fn updates(draft: &GatewayDraft, input: &Input<'_>) -> Vec<(Kind, Name, Option<Update>)> {
    let status = gateway(draft, input);
    let changed = draft.object.status.as_ref() != Some(&status);
    let own = changed.then(|| Update::of(&*draft.object, &status)).flatten();
    let sets = draft.sets.iter().enumerate().map(|(at, set)| {
        let status = of_set(draft, at, set, input);
        let changed = set.object.status.as_ref() != Some(&status);
        (Kind::Set, name_of(&*set.object), changed.then(|| Update::of(&*set.object, &status)).flatten())
    });
    std::iter::once((Kind::Gateway, name_of(&*draft.object), own)).chain(sets).collect()
}

fn gateway(draft: &GatewayDraft, input: &Input<'_>) -> GatewayStatus {
    let old = draft.object.status.clone().unwrap_or_default();
    let generation = draft.object.metadata.generation;
    let count = draft.listeners_of(None).count();
    let served = draft.listeners_of(None).filter(|l| l.is_programmed()).count();
    let added = draft.sets.iter().enumerate().filter(|(at, set)| is_served(draft, *at, set)).count();
    let (accepted, programmed) = match &draft.refused {
        Some(problem) => {
            let unusable = matches!(problem.reason, "AddressNotUsable" | "AddressNotAssigned");
            let accepted_reason = if unusable { "Accepted" } else { problem.reason };
            let programmed_reason = if unusable { problem.reason } else { "Invalid" };
            (
                Verdict::new("Accepted", unusable, accepted_reason, problem.message.as_str()),
                Verdict::new("Programmed", false, programmed_reason, problem.message.as_str()),
            )
        }
        None => {
            let reason = if served == count { "Accepted" } else { "ListenersNotValid" };
            let message = format!("{served} of {count} listeners are served");
            let any = served > 0 || added > 0;
            let waiting = draft.listeners.iter().any(|l| l.pending);
            let accepted = Verdict::new("Accepted", any || waiting, reason, message.as_str());
            let programmed = match draft.front.as_ref().and_then(|front| front.hindered(&draft.object)) {
                Some(problem) if any || waiting => Verdict::new("Programmed", false, problem.reason, problem.message),
                None if !any && waiting => Verdict::new("Programmed", false, "Pending", UNPLACED),
                _ => Verdict::new("Programmed", any, if any { "Programmed" } else { "Invalid" }, message),
            };
            (accepted, programmed)
        }
    };
    let is_served = programmed.status;
    let pending = behind_gateway(draft, input);
    let programmed = wait(programmed, pending.as_deref());
    let mut verdicts = vec![accepted, programmed];
    verdicts.extend(draft.resolved.clone());
    if is_insecure(&draft.object) {
        let why = "clients without a certificate that is trusted are let in at some ports";
        verdicts.push(Verdict::new(INSECURE, true, "ConfigurationChanged", why));
    }
    let ordered = certificates(input, Asker::Gateway, &name_of(&*draft.object), acme::asks(&*draft.object));
    let unknown = ordered.is_err();
    verdicts.extend(ordered.ok().flatten());
    let leaves = |kind: &str| kind == acme::CONDITION && !unknown;
    let ours = |c: &&Condition| !matches!(c.type_.as_str(), INSECURE | "ResolvedRefs") && !leaves(&c.type_);
    let said = |c: &&Condition| ours(c) || verdicts.iter().any(|v| v.kind == c.type_);
    let kept: Vec<Condition> = old.conditions.iter().filter(said).cloned().collect();
    let whole = draft.refused.is_none();
    let listener = |l| listener(l, whole, pending.as_deref(), &old.listeners, generation, input);
    let listeners = draft.listeners_of(None).map(listener).collect();
    let is_placed = !draft.addresses.is_empty() || draft.front.is_some();
    GatewayStatus {
        addresses: if is_served || is_placed && whole { addresses(draft, input) } else { Vec::new() },
        listeners,
        conditions: merge(&kept, verdicts, generation, input.now),
        attached_listener_sets: (!draft.sets.is_empty()).then(|| i32::try_from(added).unwrap_or(i32::MAX)),
    }
}

/// What is said of the certificates that an object has ordered.
///
/// # Errors
/// It is for the replica that orders to say: what was said stays.
fn certificates(input: &Input<'_>, kind: Asker, name: &Name, asks: bool) -> Result<Option<Verdict>, ()> {
    if asks { input.certificates.verdict(kind, name) } else { Ok(None) }
}

/// Whether any port lets clients in without a certificate although others are asked for.
fn is_insecure(gateway: &Gateway) -> bool {
    let ports = gateway.spec.listeners.iter().filter(|l| l.protocol == "HTTPS").map(|l| l.port);
    let mut checks = ports.filter_map(|port| validation(gateway, port));
    checks.any(|v| v.mode.as_deref() == Some("AllowInsecureFallback"))
}

fn is_served(draft: &GatewayDraft, at: usize, set: &SetDraft) -> bool {
    set.refused.is_none() && draft.listeners_of(Some(at)).any(ListenerDraft::is_programmed)
}

fn of_set(draft: &GatewayDraft, at: usize, set: &SetDraft, input: &Input<'_>) -> ListenerSetStatus {
    let old = set.object.status.clone().unwrap_or_default();
    let generation = set.object.metadata.generation;
    let count = draft.listeners_of(Some(at)).count();
    let served = draft.listeners_of(Some(at)).filter(|l| l.is_programmed()).count();
    let (accepted, programmed) = match (&set.refused, &draft.refused) {
        (Some(problem), _) => (
            Verdict::new("Accepted", false, problem.reason, problem.message.as_str()),
            Verdict::new("Programmed", false, problem.reason, problem.message.as_str()),
        ),
        (None, Some(problem)) => (
            Verdict::new("Accepted", false, "ParentNotAccepted", problem.message.as_str()),
            Verdict::new("Programmed", false, "ParentNotAccepted", problem.message.as_str()),
        ),
        (None, None) => {
            let message = format!("{served} of {count} listeners are served");
            let whole = served == count;
            let (accepted, programmed) = match served {
                0 => ("ListenersNotValid", "ListenersNotValid"),
                _ if whole => ("Accepted", "Programmed"),
                _ => ("ListenersNotValid", "Programmed"),
            };
            (
                Verdict::new("Accepted", served > 0, accepted, message.as_str()),
                Verdict::new("Programmed", served > 0, programmed, message),
            )
        }
    };
    let whole = draft.refused.is_none();
    let pending = behind_set(draft, set, input);
    let programmed = wait(programmed, pending.as_deref());
    let listener = |l| listener(l, whole, pending.as_deref(), &old.listeners, generation, input);
    let ordered = certificates(input, Asker::Set, &name_of(&*set.object), acme::asks(&*set.object));
    let unknown = ordered.is_err();
    let kept: Vec<Condition> = old.conditions.into_iter().filter(|c| c.type_ != acme::CONDITION || unknown).collect();
    let verdicts = [accepted, programmed].into_iter().chain(ordered.ok().flatten());
    ListenerSetStatus {
        listeners: draft.listeners_of(Some(at)).map(listener).collect(),
        conditions: merge(&kept, verdicts, generation, input.now),
    }
}

pub(super) fn addresses(draft: &GatewayDraft, input: &Input<'_>) -> Vec<GatewayAddress> {
    let given = |kind: &str, value: String| GatewayAddress { address_type: Some(kind.to_owned()), value };
    if !draft.addresses.is_empty() {
        return draft.addresses.iter().map(|ip| given("IPAddress", ip.to_string())).collect();
    }
    let kind = |a: &String| if a.parse::<std::net::IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
    if let Some(front) = &draft.front {
        return front.addresses.iter().map(|a| given(kind(a), a.clone())).collect();
    }
    let wished: Vec<&String> = draft.object.spec.addresses.iter().map(|a| &a.value).collect();
    let ours = input.addresses.iter().filter(|a| wished.iter().all(|w| w.is_empty()) || wished.contains(a));
    ours.map(|a| given(kind(a), a.clone())).collect()
}

/// Which live replicas do not serve the Gateway as it is now.
fn behind_gateway(draft: &GatewayDraft, input: &Input<'_>) -> Option<String> {
    let name = format!("{}/{}", draft.namespace, draft.object.name_any());
    let generation = draft.object.metadata.generation.unwrap_or_default();
    behind(input.topology, input.fleet, input.instance, generation, |stated| stated.get(&name).map(|g| g.generation))
}

/// Which live replicas do not serve a set of it as that is now.
fn behind_set(draft: &GatewayDraft, set: &SetDraft, input: &Input<'_>) -> Option<String> {
    let gateway = format!("{}/{}", draft.namespace, draft.object.name_any());
    let name = format!("{}/{}", set.namespace, set.object.name_any());
    let generation = set.object.metadata.generation.unwrap_or_default();
    behind(input.topology, input.fleet, input.instance, generation, |stated| {
        stated.get(&gateway)?.sets.get(&name).copied()
    })
}

/// What is served here is Programmed once all live replicas serve it.
fn wait(programmed: Verdict, pending: Option<&str>) -> Verdict {
    match pending.filter(|_| programmed.status) {
        Some(why) => Verdict::new("Programmed", false, "Pending", why),
        None => programmed,
    }
}

fn listener(
    draft: &ListenerDraft,
    gateway_is_served: bool,
    pending: Option<&str>,
    before: &[ListenerStatus],
    generation: Option<i64>,
    input: &Input<'_>,
) -> ListenerStatus {
    let programmed = if draft.is_programmed() && gateway_is_served {
        Verdict::new("Programmed", true, "Programmed", "requests are served")
    } else if draft.pending {
        Verdict::new("Programmed", false, "Pending", UNPLACED)
    } else if draft.conflicted.status {
        Verdict::new("Programmed", false, draft.conflicted.reason, draft.conflicted.message.as_str())
    } else {
        Verdict::new("Programmed", false, "Invalid", "not served; the other conditions say why")
    };
    let programmed = wait(programmed, pending);
    let accepted = if draft.conflicted.status {
        Verdict::new("Accepted", false, draft.conflicted.reason, draft.conflicted.message.as_str())
    } else {
        draft.accepted.clone()
    };
    let unanswered = draft.slots.iter().find_map(|slot| input.ports.unanswered.get(slot));
    let unanswered = unanswered.filter(|_| draft.mode == Mode::Requests && draft.protocol == Protocol::Tls);
    let http3 = unanswered.map(|why| Verdict::new(HTTP3, false, "PortUnavailable", format!("no HTTP/3: {why}")));
    let verdicts = [accepted, programmed, draft.resolved.clone(), draft.conflicted.clone()].into_iter().chain(http3);
    let before = before.iter().find(|b| b.name == draft.spec.name);
    let old = before.map(|b| b.conditions.as_slice()).unwrap_or_default();
    let old: Vec<Condition> = old.iter().filter(|c| c.type_ != HTTP3 || unanswered.is_some()).cloned().collect();
    ListenerStatus {
        name: draft.spec.name.clone(),
        supported_kinds: draft.kinds.clone(),
        attached_routes: draft.attached,
        conditions: merge(&old, verdicts, generation, input.now),
    }
}
