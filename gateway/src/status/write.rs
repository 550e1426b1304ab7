//! Writes statuses, and the GatewayClass if it is missing: only changes, only by the leader, some at once, again later when it fails.
//!
//! In: the newest [`Statuses`]. Never: judges anything, or holds up a request.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::ingress::INGRESS_CLASS;
use atoll_api::kinds::FIELD_MANAGER;
use atoll_api::kinds::gateway::{GATEWAY_CLASS, GATEWAY_CONTROLLER, GatewayClass, GatewayClassSpec};
use futures::StreamExt as _;
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassSpec};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::lead::{Lead, RENEW_EVERY};
use super::make::{Beside, unmake};
use super::policies::Told;
use super::{Statuses, Update};
use crate::acme::Standing;
use crate::fleet::Fleet;
use crate::ingress::Derived;

const AGAIN_MIN: Duration = Duration::from_millis(500);
/// The Lease is renewed between tries, however often they fail.
const AGAIN_MAX: Duration = RENEW_EVERY;
/// Writes at once.
const WRITES_MAX: usize = 8;
/// Writes until it is looked whether there is something newer.
const ROUND: usize = 64;

/// Where what is to be written comes from.
pub(crate) struct Sources {
    pub(crate) statuses: watch::Receiver<Statuses>,
    pub(crate) policies: watch::Receiver<Told>,
    pub(crate) ingresses: watch::Receiver<Arc<Derived>>,
    pub(crate) certificates: watch::Receiver<Standing>,
    /// Is told until when this replica leads.
    pub(crate) leading: watch::Sender<Option<Instant>>,
}

/// Writes whatever is newest until `shutdown`, while this replica leads.
pub(crate) async fn run(
    client: Client,
    instance: String,
    fleet: Fleet,
    mut sources: Sources,
    shutdown: CancellationToken,
) {
    let mut lead = Lead::new(client.clone(), fleet.lease(), &instance);
    let _ = shutdown.run_until_cancelled(go(&client, &fleet, &mut lead, &mut sources)).await;
    sources.leading.send_replace(None);
    let _ = tokio::time::timeout(AGAIN_MIN, lead.give_up()).await;
}

async fn go(client: &Client, fleet: &Fleet, lead: &mut Lead, sources: &mut Sources) {
    let Sources { statuses, policies, ingresses, certificates, leading } = sources;
    let mut told = Events::default();
    let (mut again, mut class_is_there) = (AGAIN_MIN, false);
    let mut beside = Beside::default();
    loop {
        let newest = statuses.borrow_and_update().clone();
        let of_policies = policies.borrow_and_update().clone();
        let derived = Arc::clone(&ingresses.borrow_and_update());
        let unissued = certificates.borrow_and_update().warnings.clone();
        let mut whole = true;
        let leads = lead.holds().await;
        leading.send_if_modified(|until| std::mem::replace(until, lead.until()) != lead.until());
        if leads {
            if !class_is_there {
                class_is_there = make_classes(client, fleet).await;
            }
            whole = class_is_there;
            for round in newest.updates.chunks(ROUND) {
                let written = round.iter().cloned().map(|update| write(client.clone(), update));
                let mut written = futures::stream::iter(written).buffer_unordered(WRITES_MAX);
                while let Some(ok) = written.next().await {
                    whole &= ok;
                }
                if statuses.has_changed().unwrap_or(true) || !lead.holds().await {
                    break;
                }
            }
            for update in of_policies.updates {
                whole &= write(client.clone(), Arc::new(update)).await;
            }
            whole &= told.tell(client, &derived).await;
            whole &= told.warn(client, &newest.warnings).await;
            whole &= told.warn(client, &of_policies.warnings).await;
            whole &= told.warn(client, &unissued).await;
            whole &= beside.make(client, &newest.made, &mut told).await;
            whole &= unmake(client, &newest.unmade).await;
        }
        again = if whole { AGAIN_MIN } else { (again * 2).min(AGAIN_MAX) };
        let pause = if whole { RENEW_EVERY } else { again };
        tokio::select! {
            changed = statuses.changed() => if changed.is_err() { return },
            changed = policies.changed() => if changed.is_err() { return },
            changed = ingresses.changed() => if changed.is_err() { return },
            Ok(()) = certificates.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Makes the classes that are there from the start. Returns whether they are.
async fn make_classes(client: &Client, fleet: &Fleet) -> bool {
    let mut whole = true;
    for name in fleet.classes() {
        whole &= make_class(client, &name).await && (name != GATEWAY_CLASS || make_ingress_class(client).await);
    }
    whole
}

/// Makes a class. Returns whether it is there.
async fn make_class(client: &Client, name: &str) -> bool {
    let api: Api<GatewayClass> = Api::all(client.clone());
    let spec = GatewayClassSpec {
        controller_name: GATEWAY_CONTROLLER.to_owned(),
        description: Some("Served by Atoll's gateways, in front of every cluster of a set.".to_owned()),
        parameters_ref: None,
    };
    match api.get_opt(name).await {
        Ok(Some(_)) => true,
        Ok(None) => match api.create(&PostParams::default(), &GatewayClass::new(name, spec)).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 409 => true,
            Err(error) => said(&error),
        },
        Err(error) => said(&error),
    }
}

/// Makes the IngressClass that exists from the start. Returns whether it is there, or can't be.
async fn make_ingress_class(client: &Client) -> bool {
    let api: Api<IngressClass> = Api::all(client.clone());
    let mut class = IngressClass::default();
    class.metadata.name = Some(INGRESS_CLASS.to_owned());
    class.spec = Some(IngressClassSpec { controller: Some(GATEWAY_CONTROLLER.to_owned()), parameters: None });
    match api.get_opt(INGRESS_CLASS).await {
        Ok(Some(_)) => true,
        Ok(None) => match api.create(&PostParams::default(), &class).await {
            Ok(_) => true,
            // Where Ingresses are not known, or not ours to touch, there is nothing to make.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => true,
            Err(error) => said(&error),
        },
        Err(kube::Error::Api(status)) if status.code == 403 => true,
        Err(error) => said(&error),
    }
}

fn said(error: &kube::Error) -> bool {
    tracing::debug!(%error, "class not made yet");
    false
}

/// Writes one status. An object that changed meanwhile comes with the next build.
async fn write(client: Client, update: Arc<Update>) -> bool {
    let (resource, mut patch) = ((update.resource)(), json!({"status": update.status()}));
    if let Some(version) = &update.version {
        patch["metadata"] = json!({"resourceVersion": version});
    }
    // A merge leaves what is absent: what we leave out because it is empty is to go.
    for field in ["addresses", "conditions", "listeners", "attachedListenerSets"] {
        // Of Services nothing but their balancer is ours.
        if resource.kind != "Service" && patch["status"].get(field).is_none() {
            patch["status"][field] = Value::Null;
        }
    }
    let api: Api<DynamicObject> = match &update.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    match api.patch_status(&update.name, &PatchParams::apply(FIELD_MANAGER), &Patch::Merge(&patch)).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
        Err(error) => {
            tracing::warn!(kind = resource.kind, name = update.name, %error, "status not written yet");
            false
        }
    }
}
