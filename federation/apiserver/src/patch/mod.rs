//! The three patches that are plain functions of value and patch. Server-side apply lives in `fields`.

mod strategic;

use serde_json::Value;

pub(crate) use self::strategic::strategic;
use crate::refusal::Refusal;

/// RFC 7386.
pub(crate) fn merge(value: &mut Value, patch: &Value) {
    json_patch::merge(value, patch);
}

/// RFC 6902. A failed `test` is a 422, as in Kubernetes.
pub(crate) fn json(value: &mut Value, patch: &Value) -> Result<(), Refusal> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|why| Refusal::bad_request(format!("error decoding patch: {why}")))?;
    json_patch::patch(value, &patch).map_err(|why| Refusal {
        code: 422,
        reason: "Invalid",
        message: format!("the server rejected our request due to an error in our request: {why}"),
        details: Value::Null,
    })
}
