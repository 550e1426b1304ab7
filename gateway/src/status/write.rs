//! Writes statuses, and the GatewayClass if it is missing: only changes, one after the other, again later when it fails.
//!
//! In: the newest [`Statuses`]. Never: judges anything, or holds up a request.

use std::time::Duration;

use atoll_api::kinds::FIELD_MANAGER;
use atoll_api::kinds::gateway::{GATEWAY_CLASS, GATEWAY_CONTROLLER, GatewayClass, GatewayClassSpec};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Statuses;

const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(15);

/// Writes whatever is newest until `shutdown`.
pub(crate) async fn run(client: Client, mut statuses: watch::Receiver<Statuses>, shutdown: CancellationToken) {
    let mut again = AGAIN_MIN;
    let _ = shutdown
        .run_until_cancelled(async {
            let mut class_is_there = false;
            loop {
                let newest = statuses.borrow_and_update().clone();
                if !class_is_there {
                    class_is_there = make_class(&client).await;
                }
                let mut whole = class_is_there;
                for (class, status) in &newest.classes {
                    whole &= write(Api::all(client.clone()), &**class, status).await;
                }
                for (gateway, status) in &newest.gateways {
                    let api = Api::namespaced(client.clone(), &gateway.namespace().unwrap_or_default());
                    whole &= write(api, &**gateway, status).await;
                }
                for (route, status) in &newest.routes {
                    let api = Api::namespaced(client.clone(), &route.namespace().unwrap_or_default());
                    whole &= write(api, &**route, status).await;
                }
                again = if whole { AGAIN_MIN } else { (again * 2).min(AGAIN_MAX) };
                tokio::select! {
                    changed = statuses.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(again), if !whole => {}
                }
            }
        })
        .await;
}

/// Makes the class that exists from the start. Returns whether it is there.
async fn make_class(client: &Client) -> bool {
    let api: Api<GatewayClass> = Api::all(client.clone());
    let spec = GatewayClassSpec {
        controller_name: GATEWAY_CONTROLLER.to_owned(),
        description: Some("Served by Atoll's gateways, in front of every cluster of a set.".to_owned()),
        parameters_ref: None,
    };
    match api.get_opt(GATEWAY_CLASS).await {
        Ok(Some(_)) => true,
        Ok(None) => match api.create(&PostParams::default(), &GatewayClass::new(GATEWAY_CLASS, spec)).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 409 => true,
            Err(error) => said(&error),
        },
        Err(error) => said(&error),
    }
}

fn said(error: &kube::Error) -> bool {
    tracing::debug!(%error, "GatewayClass not made yet");
    false
}

/// Writes one status. An object that changed meanwhile comes with the next build.
async fn write<K, S>(api: Api<K>, object: &K, status: &S) -> bool
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let mut patch = json!({
        "metadata": {"resourceVersion": object.resource_version()},
        "status": status,
    });
    // A merge leaves what is absent: what we leave out because it is empty is to go.
    for list in ["addresses", "conditions", "listeners"] {
        if patch["status"].get(list).is_none() {
            patch["status"][list] = Value::Null;
        }
    }
    let name = object.name_any();
    match api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER), &Patch::Merge(&patch)).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), name, %error, "status not written yet");
            false
        }
    }
}
