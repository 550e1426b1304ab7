//! The scheduler: binds pods to nodes whose free resources hold their requests, the freest first; says so where none does. Pure.

use atoll_api::quantity::Milli;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::ResourceExt;
use serde_json::json;

use super::{
    action::Action,
    condition::Conditions,
    world::{World, is_active},
};

/// What pods ask for and nodes have.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    cpu: i128,
    memory: i128,
    pods: i128,
}

/// Binds what fits.
pub(super) fn reconcile(world: &World, now: &str) -> Vec<Action> {
    let node_of = |p: &Pod| p.spec.as_ref().and_then(|s| s.node_name.clone());
    let mut waiting: Vec<&Pod> = world.pods.all().filter(|p| is_active(p) && node_of(p).is_none()).collect();
    if waiting.is_empty() {
        return Vec::new();
    }
    // first come, first served
    waiting.sort_by_key(|p| (p.metadata.creation_timestamp.clone(), p.name_any()));
    let mut nodes: Vec<(&Node, Room)> = world.nodes.all().filter(|n| usable(n)).map(|n| (n, allocatable(n))).collect();
    for pod in world.pods.all().filter(|p| is_active(p)) {
        let node = node_of(pod);
        if let Some((_, room)) = nodes.iter_mut().find(|(n, _)| Some(n.name_any()) == node) {
            *room = room.less(requests(pod));
        }
    }
    waiting.into_iter().filter_map(|pod| place(pod, &mut nodes, now)).collect()
}

fn place(pod: &Pod, nodes: &mut [(&Node, Room)], now: &str) -> Option<Action> {
    let asked = requests(pod);
    let selects = |n: &Node| {
        let wanted = pod.spec.iter().flat_map(|s| s.node_selector.iter().flatten());
        wanted.into_iter().all(|(k, v)| n.labels().get(k) == Some(v))
    };
    let fitting = nodes.iter_mut().filter(|(n, room)| selects(n) && room.less(asked).is_enough());
    if let Some((node, room)) = fitting.max_by_key(|(_, room)| (room.cpu, room.memory)) {
        *room = room.less(asked);
        return Some(Action::merge(pod, json!({"spec": {"nodeName": node.name_any()}})));
    }
    let lacks = |short: &dyn Fn(Room) -> bool| nodes.iter().filter(|(_, room)| short(room.less(asked))).count();
    let causes = [
        (lacks(&|r| r.cpu < 0), "Insufficient cpu"),
        (lacks(&|r| r.memory < 0), "Insufficient memory"),
        (lacks(&|r| r.pods < 0), "Too many pods"),
        (nodes.iter().filter(|(n, _)| !selects(n)).count(), "node(s) didn't match Pod's node affinity/selector"),
    ];
    let causes: Vec<_> = causes.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} {why}")).collect();
    let message = format!("0/{} nodes are available: {}.", nodes.len(), causes.join(", "));
    let old = pod.status.as_ref().map(|s| json!(s)).unwrap_or_else(|| json!({}));
    let mut conditions = Conditions::of(&old, now);
    conditions.set("PodScheduled", false, "Unschedulable", &message);
    let status = json!({"phase": "Pending", "conditions": conditions.done()});
    (!super::deployments::same(&old, &status)).then(|| Action::status(pod, &status))
}

impl Room {
    fn less(self, other: Self) -> Self {
        Self { cpu: self.cpu - other.cpu, memory: self.memory - other.memory, pods: self.pods - other.pods }
    }

    fn is_enough(self) -> bool {
        self.cpu >= 0 && self.memory >= 0 && self.pods >= 0
    }
}

fn usable(node: &Node) -> bool {
    node.spec.as_ref().is_none_or(|s| s.unschedulable != Some(true))
}

fn milli(quantity: Option<&Quantity>) -> i128 {
    quantity.and_then(|q| Milli::parse(&q.0)).map_or(0, |m| m.0)
}

fn allocatable(node: &Node) -> Room {
    let has = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    let of = |name: &str| milli(has.and_then(|h| h.get(name)));
    Room { cpu: of("cpu"), memory: of("memory"), pods: of("pods") }
}

fn requests(pod: &Pod) -> Room {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let asked = containers.filter_map(|c| c.resources.as_ref()?.requests.as_ref());
    let one_pod = Room { pods: 1000, ..Room::default() };
    asked.fold(one_pod, |sum, r| Room {
        cpu: sum.cpu + milli(r.get("cpu")),
        memory: sum.memory + milli(r.get("memory")),
        ..sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(allocatable: serde_json::Value) -> World {
        let mut world = World::default();
        world.nodes.put(
            serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": {"allocatable": allocatable}}))
                .unwrap(),
        );
        world
    }

    fn pod(name: &str, cpu: &str, node: Option<&str>) -> Pod {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}});
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop"}, "spec": {"containers": [container], "nodeName": node},
        }))
        .unwrap()
    }

    #[test]
    fn pods_are_bound_until_a_node_is_full_and_then_told_what_is_short() {
        let cases = [
            (json!({"cpu": "1", "memory": "1Gi", "pods": "10"}), "1 Insufficient cpu"),
            (json!({"cpu": "8", "memory": "128Mi", "pods": "10"}), "1 Insufficient memory"),
            (json!({"cpu": "8", "memory": "1Gi", "pods": "2"}), "1 Too many pods"),
        ];
        for (allocatable, cause) in cases {
            let mut world = world(allocatable);
            for pod in [pod("a", "500m", Some("n1")), pod("b", "500m", None), pod("c", "500m", None)] {
                world.pods.put(pod);
            }
            let actions = reconcile(&world, "2026-01-01T00:00:00Z");
            let told: Vec<_> = actions.iter().map(|a| format!("{a:?}")).collect();
            assert_eq!(told.len(), 2);
            assert!(told[0].contains("/pods/b") && told[0].contains("n1"), "{}", told[0]);
            assert!(told[1].contains("/pods/c/status") && told[1].contains(cause), "{}", told[1]);
        }
    }

    #[test]
    fn a_pod_without_any_fitting_node_is_told_once() {
        let mut world = world(json!({"cpu": "100m", "memory": "1Gi", "pods": "10"}));
        let mut big = pod("a", "500m", None);
        let Some(Action::Merge { patch, .. }) = place(&big, &mut [], "2026-01-01T00:00:00Z") else {
            panic!("told nothing")
        };
        assert!(patch.to_string().contains("0/0 nodes are available"));
        world.pods.put(big.clone());
        let Some(Action::Merge { patch, .. }) = reconcile(&world, "2026-01-01T00:00:00Z").pop() else {
            panic!("told nothing")
        };
        big.status = serde_json::from_value(patch["status"].clone()).unwrap();
        world.pods.put(big);
        assert_eq!(reconcile(&world, "2026-01-01T00:00:09Z"), vec![]);
    }
}
