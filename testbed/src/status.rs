//! Which parts of a member run, stand still or lack. In: the process list. Out: a word a part.

use serde_json::{Map, Value, json};

use crate::process::Process;

/// The parts that every member runs outside of pods.
pub const PARTS: [&str; 9] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "containerd",
    "registry",
    "anchor",
];

/// A member's parts: `running`, `paused` or `missing`, and the count of its pods' processes.
pub(crate) fn parts(found: &[Process], member: &str) -> Value {
    let own: Vec<&Process> = found.iter().filter(|process| process.member == member).collect();
    let mut row = Map::new();
    for part in PARTS {
        let word = match own.iter().find(|process| process.part == part) {
            None => "missing",
            Some(process) if paused(process.pid) => "paused",
            Some(_) => "running",
        };
        row.insert(part.to_owned(), json!(word));
    }
    row.insert("pods".to_owned(), json!(own.iter().filter(|process| process.part == "pod").count()));
    Value::Object(row)
}

fn paused(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}
