//! The status of Ingresses: where they are reached; and what is to be told of those that are not served as they are written. Pure.

use std::net::IpAddr;

use atoll_api::kinds::gateway::GatewayAddress;
use atoll_api::topology::BalancerProblem;
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress};
use serde_json::json;

use super::{LEFT_OUT, RouteVerdicts, Update, Verdict, Warning};
use crate::objects::Objects;
use crate::table::ListenerDraft;

/// Version and kind of an Ingress, as Events name them.
pub(crate) const KIND: (&str, &str) = ("networking.k8s.io/v1", "Ingress");
pub(super) const CONFIG_MAP: (&str, &str) = ("v1", "ConfigMap");

/// The status of an Ingress, where it says something else than before.
pub(super) fn update(object: &Ingress, addresses: &[GatewayAddress]) -> Option<Update> {
    let of = |address: &GatewayAddress| {
        let is_ip = address.value.parse::<IpAddr>().is_ok();
        let (ip, hostname) =
            if is_ip { (Some(address.value.clone()), None) } else { (None, Some(address.value.clone())) };
        IngressLoadBalancerIngress { ip, hostname, ports: None }
    };
    let wanted: Vec<IngressLoadBalancerIngress> = addresses.iter().map(of).collect();
    let borne = object.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.clone()).unwrap_or_default();
    let said = if wanted.is_empty() { json!(null) } else { json!(wanted) };
    (wanted != borne).then(|| Update::of(object, &json!({"loadBalancer": {"ingress": said}}))).flatten()
}

/// What of a port of a ConfigMap does not stand as it is written: a Service that is not there, a port that is taken.
pub(super) fn port_warnings(verdicts: &RouteVerdicts, unserved: &[&ListenerDraft], objects: &Objects) -> Vec<Warning> {
    let Some(port) = crate::ingress::port_of(&*verdicts.object) else { return Vec::new() };
    let Some((namespace, name)) = &objects.derived.maps[usize::from(port.starts_with("udp"))] else {
        return Vec::new();
    };
    let mut told = warnings(verdicts, unserved);
    for warning in &mut told {
        warning.kind = CONFIG_MAP;
        (warning.namespace, warning.name) = (namespace.clone(), name.clone());
        warning.uid = objects.config(namespace, name).and_then(|object| object.metadata.uid.clone());
        warning.problem.message = format!("{port}: {}", warning.problem.message);
    }
    told
}

/// What of an Ingress does not stand as it is written: backends that are not there, values that mean nothing, hosts that are somebody else's or
/// lack their certificate.
pub(super) fn warnings(verdicts: &RouteVerdicts, unserved: &[&ListenerDraft]) -> Vec<Warning> {
    let is_wrong =
        |verdict: &&Verdict| verdict.status == (verdict.kind == "PartiallyInvalid") || verdict.reason == LEFT_OUT;
    let routes = verdicts.parents.iter().flat_map(|parent| parent.verdicts.iter()).filter(is_wrong);
    let mut problems: Vec<(&str, String)> = routes.map(|v| (v.reason, v.message.clone())).collect();
    for listener in unserved {
        let verdicts = [&listener.accepted, &listener.resolved].into_iter().filter(|verdict| !verdict.status);
        let wrong = verdicts.chain([&listener.conflicted].into_iter().filter(|verdict| verdict.status));
        let host = listener.spec.hostname.as_deref().unwrap_or("any host");
        problems.extend(wrong.map(|v| (v.reason, format!("{host} at port {}: {}", listener.port, v.message))));
    }
    problems.sort_unstable();
    problems.dedup();
    let (namespace, name) = verdicts.object.place();
    let of = |(reason, message): (&str, String)| Warning {
        kind: KIND,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: verdicts.object.uid(),
        problem: BalancerProblem { reason: reason.to_owned(), message },
    };
    problems.into_iter().map(of).collect()
}
