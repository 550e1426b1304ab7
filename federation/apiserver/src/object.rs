//! Reading and writing an object's metadata while it is plain JSON.
//! In: a `Value`; out: its parts. Never fails: what is missing or of a wrong type is absent.

use rand::RngExt as _;
use serde_json::{Map, Value};

/// The parts of metadata that the server itself writes, whatever a client sends.
pub(crate) const OWNED_BY_SERVER: [&str; 6] =
    ["uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// A string at a path, empty if absent.
pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// What lies at a path.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

/// A metadata string, empty if absent.
pub(crate) fn meta<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &["metadata", key])
}

/// The metadata map; made if absent or of a wrong type.
pub(crate) fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(object, "metadata")
}

/// The map under a key; made if absent or of a wrong type.
pub(crate) fn map_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    as_map(as_map(object).entry(key).or_insert(Value::Null))
}

/// The map in a value; made if it is something else.
pub(crate) fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object above")
}

/// The finalizers.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    let list = at(object, &["metadata", "finalizers"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Replaces the finalizers; none removes the field.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    let meta = meta_mut(object);
    if finalizers.is_empty() {
        meta.shift_remove("finalizers");
    } else {
        meta.insert("finalizers".into(), finalizers.into());
    }
}

/// Whether deletion was asked for.
pub(crate) fn is_terminating(object: &Value) -> bool {
    !meta(object, "deletionTimestamp").is_empty()
}

/// The uids of the owners.
pub(crate) fn owner_uids(object: &Value) -> Vec<u128> {
    let list = at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|owner| parse_uid(text(owner, &["uid"]))).collect()
}

/// The number behind a uid; none for what is not a UUID.
pub(crate) fn parse_uid(uid: &str) -> Option<u128> {
    let hex: String = uid.chars().filter(|c| *c != '-').collect();
    if hex.len() == 32 { u128::from_str_radix(&hex, 16).ok() } else { None }
}

/// A fresh random UUID (version 4).
pub(crate) fn new_uid() -> String {
    let bits: u128 = rand::rng().random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The five characters that generateName appends, from Kubernetes' alphabet without vowels.
pub(crate) fn name_suffix(len: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..len).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// The time as Kubernetes writes it: RFC 3339, whole seconds, UTC.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Puts apiVersion, kind and metadata first, so that stored bytes always begin alike.
pub(crate) fn in_order(mut object: Value, api_version: &str, kind: &str) -> Value {
    let mut out = Map::new();
    out.insert("apiVersion".into(), api_version.into());
    out.insert("kind".into(), kind.into());
    if let Some(map) = object.as_object_mut() {
        out.insert("metadata".into(), map.remove("metadata").unwrap_or_default());
        for (key, value) in std::mem::take(map) {
            if key != "apiVersion" && key != "kind" {
                out.insert(key, value);
            }
        }
    }
    Value::Object(out)
}

/// Removes nulls from maps, as decoding into Go types does; nulls inside lists stay.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
