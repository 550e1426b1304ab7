//! The two forms of Event: core/v1, in which they are stored, and events.k8s.io/v1. Same object, other field names.
//! Source: pkg/apis/events/v1/conversion.go.

use serde_json::Value;

/// Old field, new field.
const NAMES: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// From the stored form to events.k8s.io/v1.
pub(super) fn to_new(event: Value) -> Value {
    let mut event = rename(event, |name| NAMES.iter().find(|(old, _)| *old == name).map(|(_, new)| *new));
    swap(&mut event, "reportingComponent", "reportingController");
    event
}

/// From events.k8s.io/v1 to the stored form.
pub(super) fn to_old(event: Value) -> Value {
    let mut event = rename(event, |name| NAMES.iter().find(|(_, new)| *new == name).map(|(old, _)| *old));
    swap(&mut event, "reportingController", "reportingComponent");
    event["apiVersion"] = "v1".into();
    event
}

fn rename(event: Value, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(map) = event else { return event };
    Value::Object(map.into_iter().map(|(key, value)| (name(&key).map_or(key, str::to_owned), value)).collect())
}

fn swap(event: &mut Value, from: &str, to: &str) {
    if let Some(map) = event.as_object_mut()
        && let Some(value) = map.shift_remove(from)
    {
        map.insert(to.into(), value);
    }
}
