//! A pod's status in a kubelet's words. Pure.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use super::condition::Conditions;

/// Why a container doesn't run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    reason: &'static str,
    message: String,
}

impl Waiting {
    pub(super) fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }

    /// An image that could not be pulled: at first an error, from then on a back-off from it.
    pub(super) fn image(image: &str, why: &str, tries_before: u32) -> Self {
        match tries_before {
            0 => Self::new("ErrImagePull", format!("failed to pull image \"{image}\": {why}")),
            _ => Self::new("ImagePullBackOff", format!("Back-off pulling image \"{image}\": ErrImagePull: {why}")),
        }
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|s| &s.containers)
}

/// The status of a pod that doesn't run yet.
pub(super) fn waiting(pod: &Pod, old: &Value, why: &Waiting, now: &str) -> Value {
    let mut state = json!({"reason": why.reason});
    if !why.message.is_empty() {
        state["message"] = why.message.clone().into();
    }
    let one = |c: &Container| {
        json!({"name": c.name, "image": c.image, "imageID": "", "ready": false, "started": false, "restartCount": 0,
            "state": {"waiting": state}})
    };
    let names: Vec<_> = containers(pod).map(|c| c.name.as_str()).collect();
    let message = format!("containers with unready status: [{}]", names.join(" "));
    let mut conditions = Conditions::of(old, now);
    conditions.set("PodScheduled", true, "", "");
    conditions.set("Initialized", true, "", "");
    conditions.set("ContainersReady", false, "ContainersNotReady", &message);
    conditions.set("Ready", false, "ContainersNotReady", &message);
    json!({"phase": "Pending", "conditions": conditions.done(), "containerStatuses": containers(pod).map(one).collect::<Vec<_>>()})
}

/// The status of a pod that answers. `images` are those of all containers, those that initialise first.
pub(super) fn running(pod: &Pod, old: &Value, ip: Ipv4Addr, images: &[String], since: &str, now: &str) -> Value {
    let since = if since.is_empty() { now } else { since };
    let skip = images.len().saturating_sub(containers(pod).count());
    let one = |(c, id): (&Container, &String)| {
        json!({"name": c.name, "image": c.image, "imageID": id, "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": since}}})
    };
    let statuses: Vec<_> = containers(pod).zip(&images[skip..]).map(one).collect();
    let mut conditions = Conditions::of(old, now);
    for kind in ["PodScheduled", "Initialized", "ContainersReady", "Ready"] {
        conditions.set(kind, true, "", "");
    }
    json!({
        "phase": "Running", "conditions": conditions.done(), "containerStatuses": statuses, "startTime": since,
        "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": Ipv4Addr::new(127, ip.octets()[1], ip.octets()[2], 1),
    })
}
