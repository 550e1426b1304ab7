//! What objects are told of the balancer that serves them: conditions by field, where they are reached, how servers do, Warning Events of what is
//! refused. Of members' Services the state is stated for the hub, which hands it to their agents.
//!
//! In: what was wanted, the answer or why there is none. Out: statuses, written where they say something else, and Events, each once. Nothing is said
//! to be served that the balancer has not taken.

mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use atoll_api::kinds::gateway::{GATEWAY_GROUP, GatewayClassStatus, RouteParentStatus};
use atoll_api::kinds::{Condition, FIELD_MANAGER};
use atoll_api::provider::{Answer, Owner, PROVIDER_CONTROLLER, Refused};
use atoll_api::topology::BalancerState;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use super::wanted::{Wanted, owner};
use crate::kinds::KINDS;
use crate::objects::{Name, Objects};
use crate::status::{About, RouteObject, Verdict, event, replace};

/// Events are remembered up to so many; then they may be told again.
const TOLD_MAX: usize = 4096;

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
            let status = verdicts::gateway(gateway, wanted, told, now);
            whole &= gateway.status.as_ref() == Some(&status) || self.write(&**gateway, json!(status)).await;
        }
        for (name, _) in &wanted.sets {
            let Some(set) = objects.sets.at(name) else { continue };
            let status = verdicts::set(set, wanted, told, now);
            whole &= set.status.as_ref() == Some(&status) || self.write(&**set, json!(status)).await;
        }
        for (kind, name) in wanted.routes.keys() {
            let row = KINDS.iter().find(|row| row.kind == *kind);
            let Some(object) = row.and_then(|row| (row.object)(objects, name)) else { continue };
            whole &= self.route(&*object, kind, name, wanted, told, now).await;
        }
        if told.is_ok() {
            for service in wanted.services.iter().filter_map(|name| objects.services.at(name)) {
                whole &= self.service(service, wanted, told, now).await;
            }
        }
        let refused = told.as_ref().map_or(wanted.refused.as_slice(), |answer| answer.refused.as_slice());
        self.events(refused).await;
        whole
    }

    async fn route(
        &self,
        object: &dyn RouteObject,
        kind: &'static str,
        name: &Name,
        wanted: &Wanted,
        told: &Told,
        now: Timestamp,
    ) -> bool {
        let (namespace, plain) = name.clone();
        let owner = Owner { kind: kind.to_owned(), namespace, name: plain, cluster: None };
        let old = object.said();
        let mut parents: Vec<RouteParentStatus> =
            old.iter().filter(|p| p.controller_name != PROVIDER_CONTROLLER).cloned().collect();
        for (parent, unattached) in &wanted.routes[&(kind, name.clone())] {
            let before = old.iter().find(|p| p.controller_name == PROVIDER_CONTROLLER && p.parent_ref == *parent);
            let kept: &[Condition] = before.map(|p| p.conditions.as_slice()).unwrap_or_default();
            let said = verdicts::route(&owner, *unattached, wanted, told);
            parents.push(RouteParentStatus {
                parent_ref: parent.clone(),
                controller_name: PROVIDER_CONTROLLER.to_owned(),
                conditions: replace(kept, said, object.generation(), now),
            });
        }
        if old == parents {
            return true;
        }
        let Some((resource, _)) = object.written() else { return true };
        let (namespace, name) = object.place();
        self.patch(&resource(), Some(namespace), name, json!({"parents": parents})).await
    }

    async fn service(&self, service: &Service, wanted: &Wanted, told: &Told, now: Timestamp) -> bool {
        let Ok(answer) = told else { return true };
        let owner = owner("Service", service);
        let ingress: Vec<Value> = reached(&owner, answer)
            .map(|at| match at.parse::<IpAddr>() {
                Ok(_) => json!({"ip": at, "ipMode": "Proxy"}),
                Err(_) => json!({"hostname": at}),
            })
            .collect();
        let status = service.status.as_ref();
        let is = status.and_then(|s| s.load_balancer.as_ref()?.ingress.clone()).unwrap_or_default();
        let mut patch = json!({});
        if serde_json::to_value(&is).ok() != Some(json!(ingress)) {
            patch["loadBalancer"] = json!({"ingress": if ingress.is_empty() { Value::Null } else { json!(ingress) }});
        }
        let held: Vec<Condition> = status
            .and_then(|s| s.conditions.as_ref())
            .and_then(|all| serde_json::from_value(json!(all)).ok())
            .unwrap_or_default();
        let conditions = verdicts::with_servers(&held, &owner, wanted, answer, service.metadata.generation, now);
        if conditions != held {
            patch["conditions"] = json!(conditions);
        }
        patch == json!({}) || self.write(service, patch).await
    }

    async fn write<K: Resource<DynamicType = ()>>(&self, object: &K, status: Value) -> bool {
        let mut status = status;
        if K::kind(&()) == "Gateway" && status["addresses"].is_null() {
            status["addresses"] = Value::Null;
        }
        let (namespace, name) = (object.meta().namespace.as_deref(), object.meta().name.as_deref());
        self.patch(&ApiResource::erase::<K>(&()), namespace, name.unwrap_or_default(), status).await
    }

    async fn patch(&self, resource: &ApiResource, namespace: Option<&str>, name: &str, status: Value) -> bool {
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        let patch = Patch::Merge(json!({"status": status}));
        match api.patch_status(name, &PatchParams::apply(FIELD_MANAGER), &patch).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
            Err(error) => {
                tracing::warn!(name, %error, "status not written yet");
                false
            }
        }
    }

    /// Tells what is refused of the hub's objects, each once; members hear it from their agents.
    async fn events(&mut self, refused: &[Refused]) {
        if self.told.len() > TOLD_MAX {
            self.told.clear();
        }
        for one in refused.iter().filter(|one| one.owner.cluster.is_none()) {
            let said = format!("{}: {}", one.field, one.message);
            if !self.told.insert(format!("{} {said}", one.owner)) {
                continue;
            }
            let api: Api<Event> = Api::namespaced(self.client.clone(), &one.owner.namespace);
            // One that can't be written is no reason for anything.
            if let Err(error) = api.create(&PostParams::default(), &refusal(&one.owner, &said)).await {
                tracing::debug!(owner = %one.owner, %error, "no event written");
            }
        }
    }
}

/// The Event that says what of an object a balancer of others does not do; told again in another life.
fn refusal(owner: &Owner, said: &str) -> Event {
    let version = if owner.kind == "Service" { "v1".to_owned() } else { format!("{GATEWAY_GROUP}/v1") };
    let kind = (version.as_str(), owner.kind.as_str());
    let about = About { kind, namespace: &owner.namespace, name: &owner.name, uid: None };
    event(PROVIDER_CONTROLLER, &about, verdicts::REFUSED, said, &format!("{owner} {said} {:?}", Timestamp::now()))
}

/// What is stated of members' Services, by `cluster/namespace/name`; nothing while the balancer is not told.
pub(super) fn of_members(wanted: &Wanted, told: &Told) -> Option<BTreeMap<String, BalancerState>> {
    let answer = told.as_ref().ok()?;
    let each = wanted.members.iter().map(|(cluster, service, facts)| {
        let owner = super::wanted::member_owner(cluster, service);
        (format!("{cluster}/{service}"), verdicts::member(&owner, facts, wanted, answer))
    });
    Some(each.collect())
}

/// Where a Service is reached: nowhere, where anything of it is refused.
fn reached<'a>(owner: &'a Owner, answer: &'a Answer) -> impl Iterator<Item = &'a String> {
    let served = !answer.refused.iter().any(|r| r.owner == *owner);
    answer.addresses.iter().filter(move |r| served && r.owner == *owner).flat_map(|r| &r.addresses)
}
