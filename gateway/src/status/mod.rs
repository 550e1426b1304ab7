//! What became of every object: verdicts turned into statuses, which change only where they say something else. Pure.
//!
//! In: drafts, and the statuses that the objects bear. Out: [`Statuses`], those to be written. Objects are judged one by one, those that a
//! change touched. `write` writes them.

mod balancers;
mod condition;
mod events;
mod features;
mod gateway;
mod ingress;
pub(crate) mod lead;
mod made;
mod make;
pub(crate) mod policies;
mod policy;
mod route;
mod said;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::kinds::gateway::{GatewayClass, GatewayClassStatus, SupportedFeature};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::Ingress;
use kube::core::ApiResource;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};

pub(crate) use balancers::{Warning, state as balancer_state};
use condition::merge;
pub(crate) use condition::replace;
pub(crate) use condition::{LEFT_OUT, SERVED, Verdict};
pub(crate) use events::{About, event};
pub(crate) use ingress::KIND as INGRESS;
pub(crate) use made::Made;
use route::Statement;
pub(crate) use route::{ParentVerdict, RouteObject, RouteVerdicts};
pub(crate) use said::Said;

use crate::balancer::Balanced;
use crate::objects::{Kind, Name, Objects, name_of};
use crate::table::{GatewayDraft, Input, ListenerDraft, Policies, RouteName};

/// A status to be written. There may be thousands that wait.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    /// Of which kind.
    pub(crate) resource: fn() -> ApiResource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// The version of the object that it is about.
    pub(crate) version: Option<String>,
    status: Status,
}

#[derive(Debug, Clone)]
enum Status {
    /// As JSON.
    Written(Box<str>),
    /// That of a route, of which there may be most: it is put into words when it is written.
    Route(Box<Statement>),
}

impl Update {
    fn of<K: Resource<DynamicType = ()>>(object: &K, status: &impl Serialize) -> Option<Self> {
        Some(Self {
            resource: || ApiResource::erase::<K>(&()),
            namespace: object.namespace(),
            name: object.name_any(),
            version: object.resource_version(),
            status: Status::Written(serde_json::to_string(status).ok()?.into()),
        })
    }

    /// What is to be written.
    pub(crate) fn status(&self) -> Value {
        match &self.status {
            Status::Written(json) => serde_json::from_str(json).unwrap_or_default(),
            Status::Route(statement) => json!({"parents": statement.parents()}),
        }
    }

    /// Whether both say the same of the same version.
    pub(crate) fn says(&self, other: &Self) -> bool {
        self.version == other.version && self.status() == other.status()
    }
}

/// Statuses that differ from what the objects bear.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statuses {
    pub(crate) updates: Vec<Arc<Update>>,
    /// What is to stand beside Gateways that have addresses or a Service of their own.
    pub(crate) made: Vec<Made>,
    /// Services that stood before Gateways and are to go.
    pub(crate) unmade: Vec<Name>,
    /// What is to be told of Services and Ingresses that are not served as they ask.
    pub(crate) warnings: Vec<Warning>,
}

/// Everything that was judged: what differs, by the object. What is judged again takes the place of what was said before.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    updates: BTreeMap<(Kind, Name), Arc<Update>>,
    made: BTreeMap<Name, Vec<Made>>,
    warnings: BTreeMap<(Kind, Name), Vec<Warning>>,
    pub(crate) unmade: Vec<Name>,
}

impl Sheet {
    /// Judges the GatewayClasses.
    pub(crate) fn classes(&mut self, input: &Input<'_>) {
        let lacks = input.objects.lacks_experimental();
        for object in input.objects.classes.iter().filter(|c| input.fleet.takes(c)) {
            let status = class(object, lacks, input.now);
            let update = (object.status.as_ref() != Some(&status)).then(|| Update::of(&**object, &status)).flatten();
            self.put(Kind::Class, name_of(&**object), update);
        }
    }

    /// Judges a Gateway and its sets.
    pub(crate) fn gateway(&mut self, draft: &GatewayDraft, input: &Input<'_>) {
        if crate::ingress::is_ours(&*draft.object) {
            return;
        }
        if let Some(balanced) = input.objects.balancers.all.get(&name_of(&*draft.object)) {
            return self.balancer(draft, balanced, input);
        }
        for (kind, name, update) in gateway::updates(draft, input) {
            self.put(kind, name, update);
        }
        let name = name_of(&*draft.object);
        match made::beside(draft, input) {
            made if made.is_empty() => drop(self.made.remove(&name)),
            made => drop(self.made.insert(name, made)),
        }
    }

    /// Judges a Service of type LoadBalancer; of a member's its agent is told.
    fn balancer(&mut self, draft: &GatewayDraft, balanced: &Balanced, input: &Input<'_>) {
        let Some(object) = &balanced.object else { return };
        self.put(Kind::Service, name_of(&**object), balancers::update(draft, balanced, object, input));
        self.warnings.insert((Kind::Service, name_of(&**object)), balancers::warnings(draft, object, input.objects));
    }

    /// Takes addresses of the pool out of statuses whose Services ask for none any more.
    pub(crate) fn left(&mut self, input: &Input<'_>) {
        for object in input.objects.services.iter() {
            if let Some(update) = balancers::left(object, input) {
                self.put(Kind::Service, name_of(&**object), Some(update));
            }
        }
    }

    /// Judges a route; nothing: there is none.
    pub(crate) fn route(&mut self, route: &RouteName, verdicts: Option<&RouteVerdicts>, input: &Input<'_>) {
        // Nobody wrote what is made of ConfigMaps of ports.
        let written = verdicts.filter(|verdicts| !crate::ingress::is_ours(&*verdicts.object));
        self.put(route.0, route.1.clone(), written.and_then(|verdicts| route::update(verdicts, input)));
    }

    /// Judges an Ingress: where it is reached; nothing: nowhere.
    pub(crate) fn ingress(&mut self, object: &Arc<Ingress>, draft: Option<&GatewayDraft>, input: &Input<'_>) {
        let addresses = draft.map(|draft| gateway::addresses(draft, input)).unwrap_or_default();
        self.put(Kind::Ingress, name_of(&**object), ingress::update(object, &addresses));
    }

    /// What is to be told of an Ingress; nothing: it is gone. `unserved`: listeners of its hosts that are not served.
    pub(crate) fn ingress_warnings(
        &mut self,
        name: &Name,
        verdicts: Option<&RouteVerdicts>,
        unserved: &[&ListenerDraft],
    ) {
        let warnings = verdicts.map(|verdicts| ingress::warnings(verdicts, unserved)).unwrap_or_default();
        self.warn((Kind::Ingress, name.clone()), warnings);
    }

    /// The same of a port of a ConfigMap, which stands there as a route.
    pub(crate) fn port_warnings(
        &mut self,
        route: &RouteName,
        verdicts: Option<&RouteVerdicts>,
        unserved: &[&ListenerDraft],
        objects: &Objects,
    ) {
        let of = |verdicts| ingress::port_warnings(verdicts, unserved, objects);
        self.warn(route.clone(), verdicts.map(of).unwrap_or_default());
    }

    fn warn(&mut self, key: RouteName, warnings: Vec<Warning>) {
        if warnings.is_empty() {
            self.warnings.remove(&key)
        } else {
            self.warnings.insert(key, warnings)
        };
    }

    /// Judges a BackendTLSPolicy. `ancestors`: which policies have to do with which Gateways, both by their places.
    pub(crate) fn policy(
        &mut self,
        at: usize,
        policies: &Policies,
        gateways: &[GatewayDraft],
        ancestors: &BTreeMap<(usize, usize), usize>,
        input: &Input<'_>,
    ) {
        let judged = &policies.all[at];
        let gateways = ancestors.range((at, 0)..(at + 1, 0)).map(|((_, gateway), _)| &gateways[*gateway]);
        self.put(Kind::Policy, name_of(&*judged.object), policy::update(judged, gateways, input));
    }

    fn put(&mut self, kind: Kind, name: Name, update: Option<Update>) {
        match update {
            Some(update) => drop(self.updates.insert((kind, name), Arc::new(update))),
            None => drop(self.updates.remove(&(kind, name))),
        }
    }

    /// What is to be written.
    pub(crate) fn statuses(&self) -> Statuses {
        let made = self.made.values().flatten().cloned().collect();
        let warnings = self.warnings.values().flatten().cloned().collect();
        Statuses { updates: self.updates.values().cloned().collect(), made, unmade: self.unmade.clone(), warnings }
    }
}

fn class(class: &GatewayClass, standard: bool, now: Timestamp) -> GatewayClassStatus {
    let old = class.status.clone().unwrap_or_default();
    let verdict = match &class.spec.parameters_ref {
        None => Verdict::new("Accepted", true, "Accepted", "Gateways of this class are served"),
        Some(_) => Verdict::new("Accepted", false, "InvalidParameters", "this controller takes no parameters"),
    };
    GatewayClassStatus {
        conditions: merge(&old.conditions, [verdict], class.metadata.generation, now),
        supported_features: features::supported(standard)
            .map(|name| SupportedFeature { name: name.to_owned() })
            .collect(),
    }
}
