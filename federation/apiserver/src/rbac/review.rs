//! Questions about access that are asked by POST and never stored: `kubectl auth can-i`, `auth whoami`, token reviews.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Ask, MASTERS, Rule, granted, may};
use crate::{config::User, http::Reply, object::text, refusal::Refusal, server::Inner};

/// Answers one review.
pub(crate) fn review(server: &Arc<Inner>, user: &User, path: &str, body: &Value) -> Result<Reply, Refusal> {
    let Some(asked) = body.as_object() else {
        return Err(Refusal::bad_request("the body of a review must be one object"));
    };
    let spec = asked.get("spec").cloned().unwrap_or_else(|| json!({}));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let status = match parts.as_slice() {
        ["apis", "authorization.k8s.io", "v1", rest @ .., kind] => match (*kind, rest) {
            ("selfsubjectaccessreviews", []) => access(server, user, &spec),
            ("subjectaccessreviews", []) | ("localsubjectaccessreviews", ["namespaces", _]) => {
                access(server, &subject(&spec), &spec)
            }
            ("selfsubjectrulesreviews", []) => rules(server, user, text(&spec, &["namespace"])),
            _ => return Err(Refusal::no_such_path()),
        },
        ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"] => {
            json!({"userInfo": {"username": user.name, "groups": user.groups}})
        }
        ["apis", "authentication.k8s.io", "v1", "tokenreviews"] => token(server, &spec),
        _ => return Err(Refusal::no_such_path()),
    };
    let mut answer = asked.clone();
    answer.entry("metadata").or_insert_with(|| json!({}));
    answer.insert("spec".into(), spec);
    answer.insert("status".into(), status);
    Ok(Reply::json(201, &Value::Object(answer)))
}

fn subject(spec: &Value) -> User {
    let groups = spec.get("groups").and_then(Value::as_array);
    User {
        name: text(spec, &["user"]).into(),
        groups: groups.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

fn access(server: &Arc<Inner>, user: &User, spec: &Value) -> Value {
    let ask = if let Some(wanted) = spec.get("resourceAttributes") {
        let get = |key: &str| text(wanted, &[key]).to_owned();
        Ask {
            verb: get("verb"),
            group: get("group"),
            resource: get("resource"),
            subresource: get("subresource"),
            namespace: get("namespace"),
            name: get("name"),
            path: String::new(),
        }
    } else {
        let wanted = &spec["nonResourceAttributes"];
        Ask::path(text(wanted, &["verb"]), text(wanted, &["path"]))
    };
    let allowed = may(&server.store.read(), user, &ask);
    let reason = if allowed { "RBAC: granted" } else { "" };
    json!({"allowed": allowed, "reason": reason})
}

fn rules(server: &Arc<Inner>, user: &User, namespace: &str) -> Value {
    let mut held = granted(&server.store.read(), user, namespace);
    if user.groups.iter().any(|group| group == MASTERS) {
        let all = || vec!["*".to_owned()];
        held.push(Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() });
        held.push(Rule { verbs: all(), paths: all(), ..Rule::default() });
    }
    let (plain, resources): (Vec<&Rule>, Vec<&Rule>) = held.iter().partition(|rule| !rule.paths.is_empty());
    json!({
        "incomplete": false,
        "resourceRules": resources.iter().map(|rule| json!({"verbs": rule.verbs, "apiGroups": rule.groups,
            "resources": rule.resources, "resourceNames": rule.names})).collect::<Vec<_>>(),
        "nonResourceRules": plain.iter().map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}))
            .collect::<Vec<_>>(),
    })
}

fn token(server: &Arc<Inner>, spec: &Value) -> Value {
    match server.user_of_token(text(spec, &["token"])) {
        Some(user) => json!({"authenticated": true, "user": {"username": user.name, "groups": user.groups}}),
        None => json!({"authenticated": false, "error": "unknown token"}),
    }
}
