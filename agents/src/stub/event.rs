//! An Event in the member, where people look who wonder about their DNS.
//!
//! In: what was done. Out: an Event on ConfigMap `kube-system/coredns`. One that can't be written is no reason for anything.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;

use super::coredns::NAMESPACE;

/// Writes it.
pub(super) async fn write(client: &Client, well: bool, reason: &str, message: &str) {
    let now = Time(jiff::Timestamp::now());
    let event = Event {
        metadata: ObjectMeta {
            generate_name: Some("atoll-stub-".to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("ConfigMap".to_owned()),
            name: Some("coredns".to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectReference::default()
        },
        type_: Some(if well { "Normal" } else { "Warning" }.to_owned()),
        reason: Some(format!("AtollStub{reason}")),
        message: Some(message.to_owned()),
        source: Some(EventSource { component: Some("atoll-agent".to_owned()), host: None }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    };
    let events: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
    if let Err(error) = events.create(&PostParams::default(), &event).await {
        tracing::debug!(%error, "no event written");
    }
}
