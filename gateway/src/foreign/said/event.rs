//! The Event that says what of an object a balancer of others does not do.

use atoll_api::kinds::gateway::GATEWAY_GROUP;
use atoll_api::provider::{Owner, PROVIDER_CONTROLLER};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::verdicts::REFUSED;
use crate::ingress::mark;

const MESSAGE_MAX: usize = 1024;

pub(super) fn refused(owner: &Owner, said: &str) -> Event {
    let now = Time(Timestamp::now());
    let gateway_api = owner.kind != "Service";
    Event {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}.{}",
                owner.name.chars().take(200).collect::<String>(),
                mark(&format!("{owner} {said} {now:?}"))
            )),
            namespace: Some(owner.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(if gateway_api { format!("{GATEWAY_GROUP}/v1") } else { "v1".to_owned() }),
            kind: Some(owner.kind.clone()),
            namespace: Some(owner.namespace.clone()),
            name: Some(owner.name.clone()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(REFUSED.to_owned()),
        message: Some(said.chars().take(MESSAGE_MAX).collect()),
        source: Some(EventSource { component: Some(PROVIDER_CONTROLLER.to_owned()), host: None }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    }
}
