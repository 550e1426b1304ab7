//! Statuses of BackendTLSPolicies: at each Gateway whose routes they have to do with.

use atoll_api::kinds::gateway::{
    GATEWAY_CONTROLLER, GATEWAY_GROUP, ParentReference, PolicyAncestorStatus, PolicyStatus,
};
use kube::ResourceExt as _;

use super::Update;
use super::condition::{alike, replace};
use crate::table::{GatewayDraft, Input, Judged};

/// A status names at most so many ancestors.
const ANCESTORS_MAX: usize = 16;

/// The status of a policy that has to do with `gateways`, where it says something else than before. What other controllers and
/// other fleets say stays.
pub(super) fn update<'a>(
    judged: &Judged,
    gateways: impl Iterator<Item = &'a GatewayDraft>,
    input: &Input<'_>,
) -> Option<Update> {
    let object = &judged.object;
    let old = object.status.clone().unwrap_or_default().ancestors;
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let ours =
        |a: &PolicyAncestorStatus| input.fleet.says(input.objects, namespace, &a.controller_name, &a.ancestor_ref);
    let mut fresh: Vec<_> = old.iter().filter(|a| !ours(a)).cloned().collect();
    for gateway in gateways.take(ANCESTORS_MAX.saturating_sub(fresh.len())) {
        let ancestor = ParentReference {
            group: Some(GATEWAY_GROUP.to_owned()),
            kind: Some("Gateway".to_owned()),
            namespace: Some(gateway.namespace.clone()),
            name: gateway.object.name_any(),
            ..ParentReference::default()
        };
        let before = old.iter().find(|a| ours(a) && a.ancestor_ref == ancestor);
        let kept = before.map(|a| a.conditions.as_slice()).unwrap_or_default();
        let verdicts = vec![judged.accepted.clone(), judged.resolved.clone()];
        fresh.push(PolicyAncestorStatus {
            ancestor_ref: ancestor,
            controller_name: GATEWAY_CONTROLLER.to_owned(),
            conditions: replace(kept, verdicts, object.metadata.generation, input.now),
        });
    }
    (!alike(&old, &fresh)).then(|| Update::of(&**object, &PolicyStatus { ancestors: fresh })).flatten()
}
