//! Rollouts, step by step, with a stand-in for the ReplicaSet controller.

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn deployment(replicas: i32, image: &str, strategy: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "d", "generation": 1, "resourceVersion": "1"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": {"type": strategy},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]}},
        },
    }))
    .unwrap()
}

/// A world in which writes happen; each ReplicaSet's pods are there at once, and ready if its image is.
#[derive(Default)]
struct Play {
    world: World,
    revision: u64,
    broken: &'static str,
}

impl Play {
    fn apply(&mut self, action: &Action) {
        self.revision += 1;
        match action {
            Action::Create { object, .. } => {
                let mut object = object.clone();
                object["metadata"]["uid"] = format!("u{}", self.revision).into();
                object["metadata"]["resourceVersion"] = self.revision.to_string().into();
                self.world.answered(object).unwrap();
            }
            Action::Merge { path, patch } => {
                let name = path.trim_end_matches("/status").rsplit('/').next().unwrap();
                let mut object = if path.contains("/deployments/") {
                    json!(self.world.deployments.get("shop", name).unwrap())
                } else {
                    json!(self.world.replica_sets.get("shop", name).unwrap())
                };
                merge(&mut object, patch);
                object["metadata"]["resourceVersion"] = self.revision.to_string().into();
                self.world.answered(object).unwrap();
            }
            Action::Delete { target, .. } => self.world.replica_sets.delete(&(target.1.clone(), target.2.clone())),
        }
    }

    /// Pods follow the ReplicaSets' sizes.
    fn pods_follow(&mut self) {
        let sets: Vec<_> = self.world.replica_sets.all().cloned().collect();
        for mut r in sets {
            self.revision += 1;
            let n = size(&r);
            let broken = !self.broken.is_empty() && json!(r).to_string().contains(self.broken);
            let status = json!({"replicas": n, "readyReplicas": if broken { 0 } else { n }});
            r.status = serde_json::from_value(status).unwrap();
            r.metadata.resource_version = Some(self.revision.to_string());
            self.world.replica_sets.put(r);
        }
    }

    /// Goes on until nothing changes; returns how many pods were ready at the least, and were there at the most.
    fn settle(&mut self) -> (i32, i32) {
        let (mut least, mut most) = (i32::MAX, 0);
        for _ in 0..100 {
            let actions = reconcile(&self.world, NOW);
            if actions.is_empty() {
                return (least, most);
            }
            actions.iter().for_each(|a| self.apply(a));
            let sets = || self.world.replica_sets.all();
            least = least.min(sets().map(|r| ready(r).min(size(r))).sum());
            most = most.max(sets().map(size).sum());
            self.pods_follow();
        }
        panic!("it never settles: {:?}", reconcile(&self.world, NOW));
    }

    fn deploy(&mut self, replicas: i32, image: &str, strategy: &str) {
        self.revision += 1;
        let mut d = deployment(replicas, image, strategy);
        d.status = self.world.deployments.get("shop", "web").and_then(|d| d.status.clone());
        d.metadata.resource_version = Some(self.revision.to_string());
        self.world.deployments.put(d);
    }

    fn sizes(&self) -> Vec<(String, i32)> {
        let image = |r: &ReplicaSet| {
            json!(r).pointer("/spec/template/spec/containers/0/image").unwrap().as_str().unwrap().to_owned()
        };
        let mut all: Vec<_> = self.world.replica_sets.all().map(|r| (image(r), size(r))).collect();
        all.sort();
        all
    }
}

fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else { return *into = patch.clone() };
    for (key, value) in patch {
        merge(&mut into[key], value);
    }
}

#[test]
fn a_deployment_gets_its_pods_and_says_so() {
    let mut play = Play::default();
    play.deploy(3, "web:1", "RollingUpdate");
    play.settle();
    assert_eq!(play.sizes(), [("web:1".to_owned(), 3)]);
    let status = json!(play.world.deployments.get("shop", "web").unwrap().status);
    for (key, want) in [("replicas", 3), ("readyReplicas", 3), ("availableReplicas", 3), ("updatedReplicas", 3)] {
        assert_eq!(status[key], want, "{key}");
    }
    let says: Vec<_> =
        status["conditions"].as_array().unwrap().iter().map(|c| format!("{}={}", c["type"], c["status"])).collect();
    assert_eq!(says, ["\"Available\"=\"True\"", "\"Progressing\"=\"True\""]);
}

#[test]
fn a_new_template_rolls_over_without_a_gap_and_one_above_the_wanted_at_most() {
    let mut play = Play::default();
    play.deploy(3, "web:1", "RollingUpdate");
    play.settle();
    play.deploy(3, "web:2", "RollingUpdate");
    let (least, most) = play.settle();
    assert_eq!((least, most), (3, 4));
    assert_eq!(play.sizes(), [("web:1".to_owned(), 0), ("web:2".to_owned(), 3)]);
}

#[test]
fn a_new_template_that_never_gets_ready_leaves_the_old_pods_alone() {
    let mut play = Play { broken: "web:2", ..Play::default() };
    play.deploy(2, "web:1", "RollingUpdate");
    play.settle();
    play.deploy(2, "web:2", "RollingUpdate");
    play.settle();
    assert_eq!(play.sizes(), [("web:1".to_owned(), 2), ("web:2".to_owned(), 1)]);
    play.deploy(2, "web:1", "RollingUpdate");
    play.settle();
    assert_eq!(play.sizes(), [("web:1".to_owned(), 2), ("web:2".to_owned(), 0)], "and the way back is open");
}

#[test]
fn recreate_ends_the_old_pods_first_and_scaling_needs_no_rollout() {
    let mut play = Play::default();
    play.deploy(2, "web:1", "Recreate");
    play.settle();
    play.deploy(2, "web:2", "Recreate");
    assert_eq!(play.settle(), (0, 2));
    play.deploy(5, "web:2", "Recreate");
    play.settle();
    play.deploy(0, "web:2", "Recreate");
    play.settle();
    assert_eq!(play.sizes(), [("web:1".to_owned(), 0), ("web:2".to_owned(), 0)]);
}
