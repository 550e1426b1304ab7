//! Nobody grants what they haven't. In: who writes a role or binding, and the object; out: yes or a 403.
//! Source: kubernetes.io/docs/reference/access-authn-authz/rbac (privilege escalation prevention and bootstrapping).

use serde_json::Value;

use super::{Ask, GROUP, MASTERS, Rule, granted, may, rules_of};
use crate::{
    config::User,
    kinds::Resource,
    object::{meta, text},
    refusal::Refusal,
    store::Memory,
};

/// Checks the write of a role or binding; other resources pass.
pub(crate) fn check(memory: &Memory, user: &User, resource: &Resource, object: &Value) -> Result<(), Refusal> {
    if *resource.group != *GROUP || user.groups.iter().any(|group| group == MASTERS) {
        return Ok(());
    }
    let namespace = meta(object, "namespace");
    let (verb, on, wanted) = match &*resource.plural {
        "roles" | "clusterroles" => ("escalate", resource.plural.to_string(), Rule::all_of(object)),
        _ => {
            let role = &object["roleRef"];
            let on = if text(role, &["kind"]) == "Role" { "roles" } else { "clusterroles" };
            ("bind", on.to_owned(), rules_of(memory, role, namespace))
        }
    };
    let name = if verb == "bind" { text(object, &["roleRef", "name"]) } else { meta(object, "name") };
    let ask = Ask {
        verb: verb.into(),
        group: GROUP.into(),
        resource: on,
        namespace: namespace.into(),
        name: name.into(),
        ..Ask::default()
    };
    let held = granted(memory, user, namespace);
    let lacking: Vec<String> = wanted
        .iter()
        .flat_map(Rule::parts)
        .filter(|part| !held.iter().any(|rule| rule.covers_rule(part)))
        .map(|part| format!("{{APIGroups:{:?}, Resources:{:?}, Verbs:{:?}}}", part.groups, part.resources, part.verbs))
        .collect();
    if lacking.is_empty() || may(memory, user, &ask) {
        return Ok(());
    }
    let why = format!(
        "user \"{}\" (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        user.groups,
        lacking.join("\n")
    );
    Err(Refusal::forbidden(GROUP, &resource.plural, meta(object, "name"), &why))
}
