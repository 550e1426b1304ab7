//! What objects are told of the balancer that serves them: conditions by field, where they are reached, Warning Events of what is refused.
//!
//! In: what was wanted, the answer or why there is none. Out: statuses, written where they say something else, and Events, each once. Nothing is said
//! to be served that the balancer has not taken.

use std::collections::BTreeSet;

use atoll_api::kinds::gateway::{
    GATEWAY_GROUP, Gateway, GatewayAddress, GatewayClassStatus, GatewayStatus, ListenerStatus, RouteGroupKind,
    RouteParentStatus, RouteStatus,
};
use atoll_api::kinds::{Condition, FIELD_MANAGER};
use atoll_api::provider::{Answer, Owner, PROVIDER_CONTROLLER, Refused};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::core::v1::{EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use super::wanted::Wanted;
use crate::ingress::mark;
use crate::objects::Objects;
use crate::status::{Verdict, replace};

/// Events are remembered up to so many; then they may be told again.
const TOLD_MAX: usize = 4096;
const MESSAGE_MAX: usize = 1024;

/// Writes what is said.
pub(super) struct Said {
    client: Client,
    told: BTreeSet<String>,
}

/// What a telling came to.
type Told = Result<Answer, String>;

impl Said {
    pub(super) fn new(client: Client) -> Self {
        Self { client, told: BTreeSet::new() }
    }

    /// Says it. Returns whether all of it is written.
    pub(super) async fn say(&mut self, objects: &Objects, wanted: &Wanted, told: &Told) -> bool {
        let now = Timestamp::now();
        let mut whole = true;
        for name in &wanted.classes {
            let Some(class) = objects.classes.get("", name) else { continue };
            let old = class.status.clone().unwrap_or_default();
            let verdict =
                Verdict::new("Accepted", true, "Accepted", "a balancer of others serves Gateways of this class");
            let conditions = replace(&old.conditions, vec![verdict], class.metadata.generation, now);
            let status = GatewayClassStatus { conditions, ..GatewayClassStatus::default() };
            whole &= class.status.as_ref() == Some(&status) || self.write(&**class, json!(status)).await;
        }
        for name in &wanted.gateways {
            let Some(gateway) = objects.gateways.at(name) else { continue };
            let status = gateway_status(gateway, wanted, told, now);
            whole &= gateway.status.as_ref() == Some(&status) || self.write(&**gateway, json!(status)).await;
        }
        for (kind, name) in wanted.routes.keys() {
            whole &= match *kind {
                "HTTPRoute" => {
                    self.route(objects.routes.at(name).map(|r| (&**r, r.status.as_ref())), kind, wanted, told, now)
                        .await
                }
                "TCPRoute" => {
                    self.route(objects.tcp.at(name).map(|r| (&**r, r.status.as_ref())), kind, wanted, told, now).await
                }
                _ => self.route(objects.udp.at(name).map(|r| (&**r, r.status.as_ref())), kind, wanted, told, now).await,
            };
        }
        for name in &wanted.services {
            let Some(service) = objects.services.at(name) else { continue };
            let Ok(answer) = told else { continue };
            let owner = owner("Service", &**service);
            let served = !answer.refused.iter().any(|r| r.owner == owner);
            let reached = answer.addresses.iter().filter(|r| served && r.owner == owner).flat_map(|r| &r.addresses);
            let ingress = reached.map(|at| match at.parse::<std::net::IpAddr>() {
                Ok(_) => json!({"ip": at, "ipMode": "Proxy"}),
                Err(_) => json!({"hostname": at}),
            });
            let ingress: Vec<Value> = ingress.collect();
            let is =
                service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.clone()).unwrap_or_default();
            if serde_json::to_value(&is).ok() != Some(json!(ingress)) {
                let said = if ingress.is_empty() { Value::Null } else { json!(ingress) };
                whole &= self.write(&**service, json!({"loadBalancer": {"ingress": said}})).await;
            }
        }
        let refused = told.as_ref().map_or(wanted.refused.as_slice(), |answer| answer.refused.as_slice());
        self.events(refused).await;
        whole
    }

    async fn route<K>(
        &self,
        route: Option<(&K, Option<&RouteStatus>)>,
        kind: &str,
        wanted: &Wanted,
        told: &Told,
        now: Timestamp,
    ) -> bool
    where
        K: Resource<DynamicType = ()>,
    {
        let Some((object, status)) = route else { return true };
        let owner = owner(kind, object);
        let old = status.map(|s| s.parents.as_slice()).unwrap_or_default();
        let mut parents: Vec<RouteParentStatus> =
            old.iter().filter(|p| p.controller_name != PROVIDER_CONTROLLER).cloned().collect();
        let key =
            wanted.routes.keys().find(|(k, name)| *k == kind && name.0 == owner.namespace && name.1 == owner.name);
        for parent in key.into_iter().flat_map(|key| &wanted.routes[key]) {
            let before = old.iter().find(|p| p.controller_name == PROVIDER_CONTROLLER && p.parent_ref == *parent);
            let kept: &[Condition] = before.map(|p| p.conditions.as_slice()).unwrap_or_default();
            parents.push(RouteParentStatus {
                parent_ref: parent.clone(),
                controller_name: PROVIDER_CONTROLLER.to_owned(),
                conditions: replace(kept, route_verdicts(&owner, wanted, told), object.meta().generation, now),
            });
        }
        old == parents || self.write(object, json!({"parents": parents})).await
    }

    async fn write<K: Resource<DynamicType = ()>>(&self, object: &K, status: Value) -> bool {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = match object.meta().namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let mut patch = json!({"status": status});
        if K::kind(&()) == "Gateway" && patch["status"]["addresses"].is_null() {
            patch["status"]["addresses"] = Value::Null;
        }
        let name = object.meta().name.clone().unwrap_or_default();
        match api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER), &Patch::Merge(&patch)).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
            Err(error) => {
                tracing::warn!(name, %error, "status not written yet");
                false
            }
        }
    }

    /// Tells what is refused, each once.
    async fn events(&mut self, refused: &[Refused]) {
        if self.told.len() > TOLD_MAX {
            self.told.clear();
        }
        for one in refused {
            let said = format!("{}: {}", one.field, one.message);
            if !self.told.insert(format!("{} {said}", one.owner)) {
                continue;
            }
            let api: Api<Event> = Api::namespaced(self.client.clone(), &one.owner.namespace);
            // One that can't be written is no reason for anything.
            if let Err(error) = api.create(&PostParams::default(), &event(&one.owner, &said)).await {
                tracing::debug!(owner = %one.owner, %error, "no event written");
            }
        }
    }
}

fn owner(kind: &str, object: &impl Resource) -> Owner {
    let (namespace, name) = (object.meta().namespace.clone(), object.meta().name.clone());
    Owner { kind: kind.to_owned(), namespace: namespace.unwrap_or_default(), name: name.unwrap_or_default() }
}

/// What of an owner's fields below `prefix` is refused.
fn refused<'a>(
    owner: &'a Owner,
    prefix: &'a str,
    wanted: &'a Wanted,
    told: &'a Told,
) -> impl Iterator<Item = &'a Refused> {
    let all = told.as_ref().map_or(wanted.refused.as_slice(), |answer| answer.refused.as_slice());
    all.iter().filter(move |r| r.owner == *owner && r.field.starts_with(prefix))
}

fn listed<'a>(all: impl Iterator<Item = &'a Refused>) -> String {
    all.map(|r| format!("{}: {}", r.field, r.message)).collect::<Vec<_>>().join("; ")
}

fn route_verdicts(owner: &Owner, wanted: &Wanted, told: &Told) -> Vec<Verdict> {
    let why = listed(refused(owner, "", wanted, told));
    let accepted = match told {
        Err(why) => Verdict::new("Accepted", false, "Pending", why.as_str()),
        Ok(_) if why.is_empty() => Verdict::new("Accepted", true, "Accepted", "the balancer serves the route"),
        Ok(_) => Verdict::new("Accepted", false, "UnsupportedValue", why),
    };
    let unresolved = listed(wanted.refused.iter().filter(|r| r.owner == *owner));
    let resolved = match unresolved.is_empty() {
        true => Verdict::resolved(),
        false => Verdict::new("ResolvedRefs", false, "BackendNotFound", unresolved),
    };
    vec![accepted, resolved]
}

fn gateway_status(gateway: &Gateway, wanted: &Wanted, told: &Told, now: Timestamp) -> GatewayStatus {
    let owner = owner("Gateway", gateway);
    let (old, generation) = (gateway.status.clone().unwrap_or_default(), gateway.metadata.generation);
    let mut served = 0;
    let mut listeners = Vec::new();
    for (at, listener) in gateway.spec.listeners.iter().enumerate() {
        let field = format!("spec.listeners[{at}]");
        let why = listed(refused(&owner, &field, wanted, told));
        let (accepted, programmed) = match told {
            Err(why) => (
                Verdict::new("Accepted", true, "Accepted", "the balancer is to be told"),
                Verdict::new("Programmed", false, "Pending", why.as_str()),
            ),
            Ok(_) if why.is_empty() => {
                served += 1;
                (
                    Verdict::new("Accepted", true, "Accepted", "the balancer has the listener"),
                    Verdict::new("Programmed", true, "Programmed", "the balancer serves it"),
                )
            }
            Ok(_) => (
                Verdict::new("Accepted", false, "UnsupportedValue", why.as_str()),
                Verdict::new("Programmed", false, "Invalid", why.as_str()),
            ),
        };
        let missing = listed(wanted.refused.iter().filter(|r| r.owner == owner && r.field.starts_with(&field)));
        let resolved = match missing.is_empty() {
            true => Verdict::resolved(),
            false => Verdict::new("ResolvedRefs", false, "InvalidCertificateRef", missing),
        };
        let conflicted =
            Verdict::new("Conflicted", false, "NoConflicts", "no other listener of the Gateway is like it");
        let kinds: &[&str] = match listener.protocol.as_str() {
            "HTTP" | "HTTPS" => &["HTTPRoute"],
            "TCP" => &["TCPRoute"],
            "UDP" => &["UDPRoute"],
            _ => &[],
        };
        let kind = |kind: &&str| RouteGroupKind { group: Some(GATEWAY_GROUP.to_owned()), kind: (*kind).to_owned() };
        let frontend = wanted.push.frontends.iter().find(|f| f.owner == owner && f.field == field);
        let routes: BTreeSet<&Owner> = frontend.iter().flat_map(|f| &f.routes).map(|r| &r.owner).collect();
        let before = old.listeners.iter().find(|l| l.name == listener.name);
        let kept = before.map(|l| l.conditions.as_slice()).unwrap_or_default();
        listeners.push(ListenerStatus {
            name: listener.name.clone(),
            supported_kinds: kinds.iter().map(kind).collect(),
            attached_routes: i32::try_from(routes.len()).unwrap_or(i32::MAX),
            conditions: replace(kept, vec![accepted, programmed, resolved, conflicted], generation, now),
        });
    }
    let count = listeners.len();
    let message = format!("the balancer serves {served} of {count} listeners");
    let verdicts = match told {
        Err(why) => vec![
            Verdict::new("Accepted", true, "Accepted", "the balancer is to be told"),
            Verdict::new("Programmed", false, "Pending", why.as_str()),
        ],
        Ok(_) => {
            let reason = if served == count { "Accepted" } else { "ListenersNotValid" };
            vec![
                Verdict::new("Accepted", served > 0, reason, message.as_str()),
                Verdict::new("Programmed", served > 0, if served > 0 { "Programmed" } else { "Invalid" }, message),
            ]
        }
    };
    let reached =
        told.iter().flat_map(|answer| &answer.addresses).filter(|r| r.owner == owner).flat_map(|r| &r.addresses);
    let address = |at: &String| {
        let kind = if at.parse::<std::net::IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
        GatewayAddress { address_type: Some(kind.to_owned()), value: at.clone() }
    };
    GatewayStatus {
        addresses: reached.filter(|_| served > 0).map(address).collect(),
        conditions: replace(&old.conditions, verdicts, generation, now),
        listeners,
        attached_listener_sets: None,
    }
}

fn event(owner: &Owner, said: &str) -> Event {
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
        reason: Some("RefusedByBalancer".to_owned()),
        message: Some(said.chars().take(MESSAGE_MAX).collect()),
        source: Some(EventSource { component: Some(PROVIDER_CONTROLLER.to_owned()), host: None }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    }
}
