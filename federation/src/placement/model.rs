//! What placement reasons about: demands, members, resources. Plain data with units; made by the controller.

use std::collections::BTreeMap;

use atoll_api::kinds::{ClusterSpec, PlacementRules};
use atoll_api::quantity::Milli;
use serde_json::Value;

/// An amount of what a node gives and a pod takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Pods.
    pub pods: i64,
}

impl Resources {
    /// From Kubernetes quantities by resource name; what is absent or no quantity counts as zero.
    pub fn from_quantities(map: &BTreeMap<String, String>) -> Self {
        let get = |key: &str| map.get(key).and_then(|q| quantity_milli(q)).unwrap_or(0);
        Self { cpu_milli: get("cpu"), memory_bytes: get("memory") / 1000, pods: get("pods") / 1000 }
    }

    /// What one pod of `template` requests (sum of its containers; KEP-753: the larger of init and main), and one pod.
    pub fn of_pod(template: &Value) -> Self {
        let sum = |containers: &Value| {
            containers.as_array().into_iter().flatten().fold((0, 0), |(cpu, memory), c| {
                let get = |key: &str| {
                    let q = &c["resources"]["requests"][key];
                    q.as_str().map(str::to_owned).or_else(|| q.as_i64().map(|n| n.to_string()))
                };
                let milli = |key: &str| get(key).and_then(|q| quantity_milli(&q)).unwrap_or(0);
                (cpu + milli("cpu"), memory + milli("memory") / 1000)
            })
        };
        let (main, init) = (sum(&template["spec"]["containers"]), sum(&template["spec"]["initContainers"]));
        Self { cpu_milli: main.0.max(init.0), memory_bytes: main.1.max(init.1), pods: 1 }
    }

    /// How many times `each` fits; a resource that `each` does not ask for does not bound.
    pub fn holds(&self, each: &Self) -> i32 {
        [(self.cpu_milli, each.cpu_milli), (self.memory_bytes, each.memory_bytes), (self.pods, each.pods)]
            .into_iter()
            .filter(|(_, need)| *need > 0)
            .map(|(have, need)| i32::try_from((have / need).max(0)).unwrap_or(i32::MAX))
            .min()
            .unwrap_or(i32::MAX)
    }

    /// Adds `times` × `each`.
    pub fn plus(self, each: &Self, times: i32) -> Self {
        let times = i64::from(times);
        Self {
            cpu_milli: self.cpu_milli.saturating_add(each.cpu_milli.saturating_mul(times)),
            memory_bytes: self.memory_bytes.saturating_add(each.memory_bytes.saturating_mul(times)),
            pods: self.pods.saturating_add(each.pods.saturating_mul(times)),
        }
    }
}

/// A Kubernetes quantity in thousandths; `None` where it is none.
fn quantity_milli(text: &str) -> Option<i64> {
    i64::try_from(Milli::parse(text)?.0).ok()
}

/// How a member stands with regard to taking work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Takes work.
    Ready,
    /// Not Ready, but not yet lost for this demand: keeps what it has, gets nothing new.
    Suspect,
    /// Ready again, but not yet for long enough: keeps what it has, gets nothing new.
    Stabilising,
    /// Gone: what it has counts as lost.
    Lost,
    /// Names only: never takes work.
    NamesOnly,
}

/// A member as placement sees it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What the operator says of it.
    pub spec: ClusterSpec,
    /// Labels of the Cluster object.
    pub labels: BTreeMap<String, String>,
    /// How it stands, for the demand at hand.
    pub standing: Standing,
    /// Allocatable less requests, less what was reserved and is not yet seen. Includes the demand's own pods as used.
    pub free: Resources,
}

/// Something that wants to run.
#[derive(Debug, Clone)]
pub struct Demand {
    /// Unique and lasting; decides ties between clusters.
    pub uid: String,
    /// Replicas in all; `None`: nothing to divide, every chosen cluster gets everything.
    pub replicas: Option<i32>,
    /// What one replica requests.
    pub each: Resources,
    /// The rules.
    pub rules: PlacementRules,
    /// What each cluster is told to run now (replicas; 1 where nothing is divided).
    pub current: BTreeMap<String, i32>,
}
