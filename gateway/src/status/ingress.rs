//! The status of Ingresses: where they are reached. Pure.

use std::net::IpAddr;

use atoll_api::kinds::gateway::GatewayAddress;
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress};
use serde_json::json;

use super::Update;

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
