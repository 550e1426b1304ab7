//! Ownership by itself: what tests over HTTP can't ask for, because they don't choose the time or look into lists.

use serde_json::{Value, json};

use super::{Author, apply, track};
use crate::schema::{self, Schema};

fn schema() -> Schema {
    schema::parse(&json!({"type": "object", "properties": {
        "metadata": {"type": "object"},
        "spec": {"type": "object", "additionalProperties": {"type": "integer"}},
        "status": {"type": "object", "additionalProperties": {"type": "integer"}},
    }}))
}

fn author<'a>(manager: &'a str, time: &'a str) -> Author<'a> {
    Author { manager, api_version: "example.dev/v1", subresource: "", time }
}

/// Manager, operation and time of every entry.
fn owners(object: &Value) -> Vec<[&str; 3]> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let word = |entry, key| crate::object::text(entry, &[key]);
    entries.into_iter().flatten().map(|e| [word(e, "manager"), word(e, "operation"), word(e, "time")]).collect()
}

#[test]
fn the_oldest_of_many_updaters_become_one_that_owns_what_they_owned() {
    let schema = schema();
    let mut object = json!({"metadata": {}, "spec": {}});
    for n in 0..15 {
        let before = object.clone();
        object["spec"][format!("f{n}")] = n.into();
        track(Some(&before), &mut object, &schema, &author(&format!("m{n}"), &format!("2026-01-01T00:00:{n:02}Z")));
    }
    let owners = owners(&object);
    assert_eq!(owners.len(), 10, "{owners:?}");
    assert_eq!(owners[0][0], "ancient-changes");
    assert_eq!(owners[1][0], "m6");
    let folded = &object["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    let fields: Vec<&String> = folded.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["f:f0", "f:f1", "f:f2", "f:f3", "f:f4", "f:f5"]);
}

#[test]
fn a_write_that_changes_nothing_keeps_the_times() {
    let schema = schema();
    let mut first = json!({"metadata": {}, "spec": {"a": 1}});
    track(None, &mut first, &schema, &author("me", "2026-01-01T00:00:00Z"));
    let mut again = first.clone();
    track(Some(&first), &mut again, &schema, &author("you", "2026-01-01T00:00:01Z"));
    assert_eq!(again, first);
    let applied = json!({"metadata": {}, "spec": {"b": 2}});
    let with_b = apply(&first, &applied, &schema, &author("me", "2026-01-01T00:00:02Z"), false).unwrap();
    assert_eq!(owners(&with_b)[1], ["me", "Apply", "2026-01-01T00:00:02Z"]);
    let same = apply(&with_b, &applied, &schema, &author("me", "2026-01-01T00:00:03Z"), false).unwrap();
    assert_eq!(same, with_b);
}

#[test]
fn a_conflict_names_every_owner_and_the_part_that_was_written_and_force_takes_the_field() {
    let schema = schema();
    let mut object = json!({"metadata": {}, "spec": {"a": 1}});
    track(None, &mut object, &schema, &author("kubectl", "2026-01-01T00:00:00Z"));
    let before = object.clone();
    object["status"] = json!({"s": 1});
    let status = Author { subresource: "status", ..author("controller", "2026-01-01T00:00:01Z") };
    track(Some(&before), &mut object, &schema, &status);
    let wanted = json!({"metadata": {}, "spec": {"a": 2}, "status": {"s": 2}});
    let me = author("me", "2026-01-01T00:00:02Z");
    let refused = apply(&object, &wanted, &schema, &me, false).unwrap_err();
    for words in [
        "conflict with \"kubectl\" using example.dev/v1",
        "conflict with \"controller\" with subresource \"status\" using example.dev/v1",
        ".spec.a",
        ".status.s",
    ] {
        assert!(refused.message.contains(words), "{words}: {}", refused.message);
    }
    let taken = apply(&object, &wanted, &schema, &me, true).unwrap();
    assert_eq!((&taken["spec"], &taken["status"]), (&wanted["spec"], &wanted["status"]));
    let owners: Vec<&Value> = taken["metadata"]["managedFields"].as_array().unwrap().iter().collect();
    for field in ["/fieldsV1/f:spec/f:a", "/fieldsV1/f:status/f:s"] {
        let held: Vec<&Value> = owners.iter().filter(|e| e.pointer(field).is_some()).map(|e| &e["manager"]).collect();
        assert_eq!(held, ["me"], "{field}");
    }
}
