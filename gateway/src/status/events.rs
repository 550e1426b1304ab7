//! Warning Events about what of Ingresses and of the ConfigMaps of ports isn't carried out, about Services of type LoadBalancer and Ingresses
//! that are not served as they ask, and about certificates that are not issued, each once: its name is made of what it says.

use std::collections::BTreeSet;
use std::sync::Arc;

use atoll_api::kinds::FIELD_MANAGER;
use atoll_api::kinds::gateway::GATEWAY_CONTROLLER;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PostParams;
use kube::{Api, Client};

use super::Warning;
use super::ingress::{CONFIG_MAP, KIND};
use crate::ingress::{Derived, mark};

/// An Event says at most so much.
const MESSAGE_MAX: usize = 1024;
/// What was told is remembered up to so many; then it is looked at again.
const TOLD_MAX: usize = 16_384;

/// What was told in this life.
#[derive(Default)]
pub(super) struct Events(BTreeSet<String>);

impl Events {
    /// Tells what wasn't yet. Returns whether all of it is told.
    pub(super) async fn tell(&mut self, client: &Client, derived: &Arc<Derived>) -> bool {
        if self.0.len() > TOLD_MAX {
            self.0.clear();
        }
        let mut whole = true;
        for ((namespace, name), live) in &derived.live {
            for finding in &live.part.findings {
                let said = finding.to_string();
                let reason = if finding.closes { "Closed" } else { "NotHonoured" };
                let about = About { kind: KIND, namespace, name, uid: live.uid.clone() };
                whole &= self.one(client, &about, reason, &said).await;
            }
        }
        for port in &derived.unpassed {
            let (namespace, name) = &port.config;
            let about = About { kind: CONFIG_MAP, namespace, name, uid: port.uid.clone() };
            whole &= self.one(client, &about, "NotHonoured", &port.finding.to_string()).await;
        }
        whole
    }

    /// Tells what is wrong with other objects, where it wasn't yet. Returns whether all of it is told.
    pub(super) async fn warn(&mut self, client: &Client, warnings: &[Warning]) -> bool {
        let mut whole = true;
        for Warning { kind, namespace, name, uid, problem } in warnings {
            let about = About { kind: *kind, namespace, name, uid: uid.clone() };
            whole &= self.one(client, &about, &problem.reason, &problem.message).await;
        }
        whole
    }

    async fn one(&mut self, client: &Client, about: &About<'_>, reason: &str, said: &str) -> bool {
        let key = format!("{} {}/{} {:?} {said}", about.kind.1, about.namespace, about.name, about.uid);
        if self.0.contains(&key) {
            return true;
        }
        let api: Api<Event> = Api::namespaced(client.clone(), about.namespace);
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&parameters, &event(GATEWAY_CONTROLLER, about, reason, said, said)).await {
            Ok(_) => drop(self.0.insert(key)),
            // It was told before, or may not be.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => drop(self.0.insert(key)),
            Err(error) => {
                tracing::debug!(%error, "event not told yet");
                return false;
            }
        }
        true
    }
}

/// What an Event is about.
pub(crate) struct About<'a> {
    /// Its version and kind.
    pub(crate) kind: (&'a str, &'a str),
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: Option<String>,
}

/// A Warning Event of a controller. `key`: what says the same has the same name.
pub(crate) fn event(by: &str, about: &About<'_>, reason: &str, said: &str, key: &str) -> Event {
    let About { kind, namespace, name, uid } = about;
    let hash = mark(&format!("{uid:?} {key}"));
    let now = Time(jiff::Timestamp::now());
    let message = said.chars().take(MESSAGE_MAX).collect();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{hash}", name.chars().take(200).collect::<String>())),
            namespace: Some((*namespace).to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(kind.0.to_owned()),
            kind: Some(kind.1.to_owned()),
            namespace: Some((*namespace).to_owned()),
            name: Some((*name).to_owned()),
            uid: uid.clone(),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        source: Some(EventSource { component: Some(by.to_owned()), host: None }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    }
}
