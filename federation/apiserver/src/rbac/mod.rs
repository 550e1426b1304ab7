//! Who may do what: Roles, ClusterRoles and their bindings, read from memory at each question.
//! In: a user and what they ask for; out: yes, or a 403 in Kubernetes' words. Anything not granted is refused.

mod escalate;
mod review;
mod rules;

use std::sync::Arc;

use serde_json::Value;

pub(crate) use self::{
    escalate::check as check_escalation,
    review::review,
    rules::{Ask, Rule},
};
use crate::{
    config::User,
    object::text,
    refusal::Refusal,
    server::Inner,
    store::{Key, Memory},
};

const GROUP: &str = "rbac.authorization.k8s.io";
/// Members of this group may do everything, whatever the roles say.
pub(crate) const MASTERS: &str = "system:masters";

/// Whether the user may.
///
/// # Errors
/// 403, worded as Kubernetes does.
pub(crate) fn allow(server: &Arc<Inner>, user: &User, ask: &Ask) -> Result<(), Refusal> {
    if may(&server.store.read(), user, ask) { Ok(()) } else { Err(refuse(user, ask)) }
}

/// Whether the user may.
pub(crate) fn may(memory: &Memory, user: &User, ask: &Ask) -> bool {
    if user.groups.iter().any(|group| group == MASTERS) {
        return true;
    }
    granted(memory, user, &ask.namespace).iter().any(|rule| rule.covers(ask))
}

/// All rules that hold for a user, cluster-wide and in one namespace.
pub(crate) fn granted(memory: &Memory, user: &User, namespace: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (plural, within) in [("clusterrolebindings", ""), ("rolebindings", namespace)] {
        if plural == "rolebindings" && namespace.is_empty() {
            continue;
        }
        let Some(bindings) = memory.collection(&format!("{GROUP}/{plural}")) else { continue };
        for (_, stored) in bindings.iter(within) {
            let binding = stored.value();
            if is_subject(&binding, user, within) {
                rules.extend(rules_of(memory, &binding["roleRef"], within));
            }
        }
    }
    rules
}

/// The rules of the role that a binding names.
pub(crate) fn rules_of(memory: &Memory, role: &Value, namespace: &str) -> Vec<Rule> {
    let is_role = text(role, &["kind"]) == "Role";
    let (plural, within) = if is_role { ("roles", namespace) } else { ("clusterroles", "") };
    let key = Key::new(&format!("{GROUP}/{plural}").into(), within, text(role, &["name"]));
    memory.get(&key).map(|stored| Rule::all_of(&stored.value())).unwrap_or_default()
}

fn is_subject(binding: &Value, user: &User, namespace: &str) -> bool {
    let subjects = binding.get("subjects").and_then(Value::as_array);
    subjects.into_iter().flatten().any(|subject| {
        let name = text(subject, &["name"]);
        match text(subject, &["kind"]) {
            "User" => user.name == name,
            "Group" => user.groups.iter().any(|group| group == name) || name == "system:authenticated",
            "ServiceAccount" => {
                let within = text(subject, &["namespace"]);
                let within = if within.is_empty() { namespace } else { within };
                user.name == format!("system:serviceaccount:{within}:{name}")
            }
            _ => false,
        }
    })
}

fn refuse(user: &User, ask: &Ask) -> Refusal {
    let (who, verb) = (&user.name, &ask.verb);
    if ask.resource.is_empty() {
        let why = format!("User \"{who}\" cannot {verb} path \"{}\"", ask.path);
        return Refusal::forbidden("", "", "", &why);
    }
    let mut resource = ask.resource.clone();
    if !ask.subresource.is_empty() {
        resource = format!("{resource}/{}", ask.subresource);
    }
    let scope = if ask.namespace.is_empty() || ask.resource == "namespaces" && ask.group.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", ask.namespace)
    };
    let why = format!("User \"{who}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {scope}", ask.group);
    Refusal::forbidden(&ask.group, &ask.resource, &ask.name, &why)
}
