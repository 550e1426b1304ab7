//! Makes what stands beside Gateways, and keeps it as it should be; deletes the Services that no Gateway wants any more.
//!
//! In: objects to be applied. Never: what they are to be (see `made`). What others change or delete is put right within [`LOOK_EVERY`]: nothing
//! tells of every change there may be, and applying what is as it should be changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use atoll_api::kinds::FIELD_MANAGER;
use atoll_api::topology::BalancerProblem;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Made;
use super::balancers::Warning;
use super::events::Events;
use super::made::place;
use crate::objects::Name;

/// What was applied is applied again.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// At most so many at once; many Gateways take longer.
const LOOKS_MAX: usize = 16;

/// What was applied, and when.
#[derive(Default)]
pub(super) struct Beside(BTreeMap<String, (Value, Instant)>);

impl Beside {
    /// Applies what is not as it should be, or was not looked at for long. Returns whether all of it is there. Who refuses one is told of to
    /// whoever looks at its Gateway.
    pub(super) async fn make(&mut self, client: &Client, wanted: &[Made], told: &mut Events) -> bool {
        self.0.retain(|key, _| wanted.iter().any(|made| place(&made.object) == *key));
        let (mut whole, mut looks) = (true, 0);
        for Made { object, stale } in wanted {
            let key = place(object);
            if !stale
                && let Some((applied, at)) = self.0.get(&key)
                && applied == object
            {
                if at.elapsed() < LOOK_EVERY || looks == LOOKS_MAX {
                    continue;
                }
                looks += 1;
            }
            match apply(client, object).await {
                Ok(()) => drop(self.0.insert(key, (object.clone(), Instant::now()))),
                // Its namespace is going; the Gateway goes with it.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    tracing::warn!(object = key, %error, "what stands beside a Gateway is not made yet");
                    told.warn(client, &[refused(object, &error)]).await;
                    whole = false;
                }
            }
        }
        whole
    }
}

fn said<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

async fn apply(client: &Client, object: &Value) -> kube::Result<()> {
    let (group, version) = said(object, "/apiVersion").split_once('/').unwrap_or(("", said(object, "/apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, said(object, "/kind")));
    let namespace = said(object, "/metadata/namespace");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let name = said(object, "/metadata/name");
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch(name, &parameters, &Patch::Apply(object)).await {
        // Ports that somebody else added stand beside ours, and have their names: ours alone are to be there.
        Err(kube::Error::Api(status)) if status.code == 422 && object.pointer("/spec/ports").is_some() => {
            let ports = json!({"spec": {"ports": object["spec"]["ports"]}});
            api.patch(
                name,
                &PatchParams { field_manager: parameters.field_manager.clone(), ..PatchParams::default() },
                &Patch::Merge(ports),
            )
            .await?;
            api.patch(name, &parameters, &Patch::Apply(object)).await.map(drop)
        }
        done => done.map(drop),
    }
}

/// What is told of an object that could not be made, at the Gateway that owns it.
fn refused(object: &Value, error: &kube::Error) -> Warning {
    let owner = |field: &str| said(object, &format!("/metadata/ownerReferences/0/{field}")).to_owned();
    let why = match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    };
    Warning {
        kind: ("gateway.networking.k8s.io/v1", "Gateway"),
        namespace: said(object, "/metadata/namespace").to_owned(),
        name: owner("name"),
        uid: Some(owner("uid")).filter(|uid| !uid.is_empty()),
        problem: BalancerProblem { reason: "NotMade".to_owned(), message: format!("{}: {why}", place(object)) },
    }
}

/// Deletes Services that no Gateway wants any more. Returns whether all of them are gone.
pub(super) async fn unmake(client: &Client, unwanted: &[Name]) -> bool {
    let mut whole = true;
    for (namespace, name) in unwanted {
        let api: Api<Service> = Api::namespaced(client.clone(), namespace);
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                tracing::warn!(service = format!("{namespace}/{name}"), %error, "Service of no Gateway not deleted yet");
                whole = false;
            }
        }
    }
    whole
}
