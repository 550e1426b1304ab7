//! What single built-in kinds need beyond their schema: defaults that clients rely on, rules, rights.
//! In: the object before and the new one; out: the new one filled in, or what is wrong with it.

mod defaults;

use serde_json::Value;

use super::{Call, services};
use crate::{
    kinds::{DEFINITIONS, check_definition, established},
    object::{meta, text},
    rbac,
    refusal::{Cause, Refusal},
};

/// All that a Secret or ConfigMap may hold, as the API's `MaxSecretSize` has it.
const DATA_BYTES_MAX: usize = 1024 * 1024;

/// Fills in what the kind's API promises.
pub(super) fn default(call: &Call<'_>, before: Option<&Value>, new: &mut Value) -> Result<(), Refusal> {
    match &*call.resource().collection {
        "/namespaces" => defaults::namespace(before, new),
        "/secrets" => defaults::secret(new),
        "/services" => {
            defaults::service(before, new);
            services::assign(call, new)?;
        }
        "/pods" => defaults::pod(before, new),
        "apps/deployments" => defaults::deployment(new),
        "apps/replicasets" => defaults::replica_set(new),
        "apps/statefulsets" => defaults::stateful_set(new),
        "apps/daemonsets" => defaults::daemon_set(new),
        "batch/jobs" => defaults::job(new),
        "batch/cronjobs" => defaults::cron_job(new),
        DEFINITIONS if call.target.subresource.is_empty() => established(new),
        _ => {}
    }
    Ok(())
}

/// What is wrong with the object.
pub(super) fn check(call: &Call<'_>, before: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    match &*call.resource().collection {
        DEFINITIONS => causes.extend(check_definition(new)),
        "/services" => {
            let changed =
                |path: &[&str]| before.is_some_and(|b| !text(b, path).is_empty() && text(b, path) != text(new, path));
            if before.is_none() {
                causes.extend(services::check_address(call, new));
            } else if changed(&["spec", "clusterIP"]) && text(new, &["spec", "type"]) != "ExternalName" {
                causes.push(Cause::invalid("spec.clusterIPs[0]", &new["spec"]["clusterIP"], "may not change once set"));
            }
        }
        "apps/deployments" | "apps/replicasets" | "apps/statefulsets" | "apps/daemonsets" => {
            check_workload(before, new, &mut causes);
        }
        "/configmaps" | "/secrets" => {
            check_data(before, new, *call.resource().collection == *"/secrets", &mut causes);
        }
        "rbac.authorization.k8s.io/rolebindings" | "rbac.authorization.k8s.io/clusterrolebindings"
            if before.is_some_and(|b| b["roleRef"] != new["roleRef"]) =>
        {
            causes.push(Cause::invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
        }
        _ => {}
    }
    causes
}

/// What a Secret or ConfigMap holds. `coded`: `data` is in base64, as `binaryData` always is.
fn check_data(before: Option<&Value>, new: &Value, coded: bool, causes: &mut Vec<Cause>) {
    let frozen = before.filter(|b| b["immutable"] == true);
    for field in ["data", "binaryData"] {
        if frozen.is_some_and(|b| b[field] != new[field] || new["immutable"] != true) {
            causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
        }
    }
    let mut octets = 0;
    for (field, coded) in [("data", coded), ("binaryData", true)] {
        for (key, value) in new[field].as_object().into_iter().flatten() {
            if !is_data_key(key) {
                let why =
                    "a valid key consists of at most 253 letters, digits, `-`, `_` or `.`, and doesn't begin with `..`";
                causes.push(Cause::invalid(format!("{field}[{key}]"), &Value::from(&**key), why));
            }
            let text = value.as_str().unwrap_or_default();
            octets += if coded { text.trim_end_matches('=').len() * 3 / 4 } else { text.len() };
        }
    }
    if octets > DATA_BYTES_MAX {
        causes.push(Cause::too_long("data", DATA_BYTES_MAX));
    }
}

/// The name of a value: it may become a file.
fn is_data_key(key: &str) -> bool {
    let fits = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    (1..=253).contains(&key.len()) && fits && key != "." && !key.starts_with("..")
}

fn check_workload(before: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    let selector = &new["spec"]["selector"];
    if before.is_some_and(|b| b["spec"]["selector"] != *selector) {
        causes.push(Cause::invalid("spec.selector", selector, "field is immutable"));
    }
    let labels = new.pointer("/spec/template/metadata/labels");
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    let unmet = wanted.into_iter().flatten().any(|(key, value)| labels.and_then(|l| l.get(key)) != Some(value));
    if unmet {
        let labels = labels.cloned().unwrap_or_default();
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &labels,
            "`selector` does not match template `labels`",
        ));
    }
    if new["spec"]["replicas"].as_i64().is_some_and(|n| n < 0) {
        let why = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.replicas", &new["spec"]["replicas"], why));
    }
    if new.pointer("/spec/template/spec/containers").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.template.spec.containers"));
    }
}

/// Whether this user may write this object, beyond the verb.
pub(super) fn permit(call: &Call<'_>, before: Option<&Value>, new: &Value) -> Result<(), Refusal> {
    let granted = |object: &Value| (object["rules"].clone(), object["roleRef"].clone(), object["subjects"].clone());
    if before.is_some_and(|b| granted(b) == granted(new)) {
        return Ok(());
    }
    debug_assert!(!meta(new, "name").is_empty(), "names are checked before");
    rbac::check_escalation(&call.server.store.read(), call.user, call.resource(), new)
}
