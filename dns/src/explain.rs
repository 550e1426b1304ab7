//! Why a question is answered as it is: every decision on the way, for people.
//!
//! In: what was decided, as it is decided. Out: JSON. A trace that is off costs nothing and keeps nothing.

use hickory_proto::rr::Name;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::client::Asker;
use crate::hierarchy::{Place, Scope};
use crate::names::show;
use crate::world::World;

/// Steps kept.
const STEPS_MAX: usize = 64;

/// What was decided on the way.
#[derive(Debug)]
pub(crate) struct Trace {
    steps: Option<Vec<Value>>,
}

impl Trace {
    /// One that keeps nothing.
    pub(crate) fn off() -> Self {
        Self { steps: None }
    }

    /// One that keeps every step.
    pub(crate) fn on() -> Self {
        Self { steps: Some(Vec::new()) }
    }

    /// Notes a step.
    pub(crate) fn step(&mut self, what: &str, value: impl FnOnce() -> Value) {
        if let Some(steps) = self.steps.as_mut().filter(|s| s.len() < STEPS_MAX) {
            steps.push(json!({ what: value() }));
        }
    }

    /// Notes where a name belongs.
    pub(crate) fn place(&mut self, name: &Name, place: &Place<'_>) {
        self.step("hierarchy", || {
            let mut value = describe(place);
            value["name"] = show(name).into();
            value
        });
    }

    /// Notes what was decided there.
    pub(crate) fn decided(&mut self, why: Vec<String>, answer: &Answer) {
        if !why.is_empty() {
            self.step("policy", || json!({ "why": why }));
        }
        if let Some(next) = &answer.next {
            self.step("chain", || json!({ "goesOnAt": show(next) }));
        }
    }

    pub(crate) fn into_steps(self) -> Vec<Value> {
        self.steps.unwrap_or_default()
    }
}

fn describe(place: &Place<'_>) -> Value {
    match place {
        Place::Here(zone) => json!({"place": "Here", "zone": show(zone.apex())}),
        Place::Below(below) => {
            json!({"place": "Below", "member": below.member.name.as_str(), "asked": show(&below.native), "reverse": below.reverse})
        }
        Place::Unaskable(member, refused) => {
            json!({"place": "Below", "member": member.name.as_str(), "refused": refused.to_string()})
        }
        Place::Beside(zone, beside) => {
            let scope = match &beside.scope {
                Scope::Set => "the asker's cluster set".to_owned(),
                Scope::Region(region) => format!("region {region}"),
                Scope::Environment(environment) => format!("environment {environment}"),
            };
            json!({"place": "Beside", "zone": show(zone.apex()), "scope": scope, "what": beside.what.to_string()})
        }
        Place::Host(zone, policy) => json!({"place": "Host", "zone": show(zone.apex()), "policy": policy.name()}),
        Place::Inner(member) => json!({"place": "Inner", "member": member.name.as_str()}),
        Place::Nowhere(member) => json!({"place": "Nowhere", "member": member.name.as_str()}),
        Place::Outside => json!({"place": "Outside"}),
        Place::Unknown => json!({"place": "Unknown"}),
    }
}

/// The whole decision.
pub(crate) fn document(
    world: &World,
    (asker, by): (&Asker, &str),
    asked: (&Name, &str),
    answer: &Answer,
    trace: Trace,
) -> Value {
    let records = |set: &[hickory_proto::rr::Record]| -> Vec<Value> {
        let one = |r: &hickory_proto::rr::Record| json!({"name": show(&r.name), "ttl": r.ttl, "type": r.record_type().to_string(), "data": r.data.to_string()});
        set.iter().map(one).collect()
    };
    let version = world.table.version();
    let clusters = world.table.topology.clusters.keys();
    let health: serde_json::Map<String, Value> =
        clusters.map(|c| (c.as_str().to_owned(), world.health.ready(c.as_str()).into())).collect();
    json!({
        "name": show(asked.0),
        "type": asked.1,
        "asker": {
            "cluster": asker.cluster, "clusterSet": asker.set, "region": asker.region, "zone": asker.zone,
            "recursion": asker.recursion, "by": by,
        },
        "topology": {"epoch": version.epoch, "generation": version.generation},
        "health": {
            "source": format!("{:?}", world.health.source()),
            "hubSilentSeconds": world.silence.map(|s| s.as_secs()),
            "ready": health,
            "relayed": world.relayed.iter().map(atoll_api::names::ClusterName::as_str).collect::<Vec<_>>(),
            "probedDown": world.down.iter().map(atoll_api::names::ClusterName::as_str).collect::<Vec<_>>(),
        },
        "steps": trace.into_steps(),
        "rcode": crate::metrics::code(answer.rcode),
        "authoritative": answer.authoritative,
        "errors": answer.edes.iter().map(|e| json!({"code": e.code, "text": e.text})).collect::<Vec<_>>(),
        "answer": records(&answer.answers),
        "authority": records(&answer.authorities),
        "additional": records(&answer.additionals),
        "badRecords": world.table.bad_records().collect::<Vec<_>>(),
    })
}
