//! Kubernetes' protobuf bodies, which kubectl and other Go clients send for built-in kinds. In: bytes; out: the JSON
//! that they stand for. Only read, never written: every such client also takes JSON answers.
//! The field numbers are data (`messages.txt`), so one small decoder serves every kind.
//! Source: kubernetes.io/docs/reference/using-api/api-concepts (protobuf encoding idiosyncrasies).

mod wire;

use std::{collections::HashMap, sync::LazyLock};

use base64::Engine as _;
use serde_json::{Map, Value};

use self::wire::{Field, Reader};
use crate::refusal::Refusal;

/// The media type.
pub(crate) const MEDIA: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";
const DEPTH_MAX: usize = 64;

/// How a field occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    Many,
    ByText,
    Inline,
}

/// Name, shape and type of a field.
type Entry = (&'static str, Shape, &'static str);

static MESSAGES: LazyLock<HashMap<&'static str, HashMap<u64, Entry>>> =
    LazyLock::new(|| include_str!("messages.txt").lines().filter_map(message).collect());

fn message(line: &'static str) -> Option<(&'static str, HashMap<u64, Entry>)> {
    let (name, fields) = line.split_once('|')?;
    let fields = fields.split('|').filter_map(|field| {
        let mut words = field.split(' ');
        let (number, name, kind) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        let (shape, kind) = match kind.split_at_checked(1)? {
            ("*", rest) => (Shape::Many, rest),
            ("%", rest) => (Shape::ByText, rest),
            ("^", rest) => (Shape::Inline, rest),
            _ => (Shape::One, kind),
        };
        Some((number, (name, shape, kind)))
    });
    Some((name, fields.collect()))
}

/// Reads a body.
///
/// # Errors
/// 400 for what isn't protobuf, 415 for a kind that isn't in the table.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Refusal> {
    let bad = || Refusal::bad_request("the body is not in Kubernetes' protobuf encoding");
    let envelope = bytes.strip_prefix(MAGIC).ok_or_else(bad)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Reader(envelope) {
        match field.ok_or_else(bad)? {
            (1, Field::Bytes(meta)) => {
                for field in Reader(meta) {
                    match field.ok_or_else(bad)? {
                        (1, Field::Bytes(text)) => version = String::from_utf8_lossy(text).into_owned(),
                        (2, Field::Bytes(text)) => kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let name = message_name(&version, &kind);
    if !MESSAGES.contains_key(&*name) {
        return Err(Refusal::unsupported_media(format!(
            "{kind} of {version} is not accepted as protobuf; send application/json"
        )));
    }
    let mut object = Map::new();
    object.insert("apiVersion".into(), version.into());
    object.insert("kind".into(), kind.into());
    read(raw, &name, &mut object, 0).ok_or_else(bad)?;
    Ok(Value::Object(object))
}

fn message_name(version: &str, kind: &str) -> String {
    let (group, version) = version.split_once('/').unwrap_or(("core", version));
    if kind == "DeleteOptions" {
        return "meta.v1.DeleteOptions".into();
    }
    format!("{}.{version}.{kind}", group.split('.').next().unwrap_or_default())
}

fn read(bytes: &[u8], name: &str, object: &mut Map<String, Value>, depth: usize) -> Option<()> {
    let fields = MESSAGES.get(name)?;
    if depth > DEPTH_MAX {
        return None;
    }
    for field in Reader(bytes) {
        let (number, field) = field?;
        let Some((name, shape, kind)) = fields.get(&number) else { continue };
        match shape {
            Shape::Inline => {
                let Field::Bytes(inner) = field else { return None };
                read(inner, kind, object, depth + 1)?;
            }
            Shape::ByText => {
                let Field::Bytes(entry) = field else { return None };
                let (key, value) = pair(entry, kind, depth)?;
                let map = object.entry(*name).or_insert_with(|| Value::Object(Map::new()));
                map.as_object_mut()?.insert(key, value);
            }
            Shape::Many => {
                let value = scalar(field, kind, depth)?;
                object.entry(*name).or_insert_with(|| Value::Array(Vec::new())).as_array_mut()?.push(value);
            }
            Shape::One => {
                let value = scalar(field, kind, depth)?;
                // Go's encoder writes absent texts and times as empty ones.
                if value != Value::Null && value != Value::String(String::new()) {
                    object.insert((*name).into(), value);
                }
            }
        }
    }
    Some(())
}

fn pair(entry: &[u8], kind: &str, depth: usize) -> Option<(String, Value)> {
    let (mut key, mut value) = (String::new(), Value::String(String::new()));
    for field in Reader(entry) {
        match field? {
            (1, Field::Bytes(text)) => key = String::from_utf8(text.to_vec()).ok()?,
            (2, field) => value = scalar(field, kind, depth)?,
            _ => {}
        }
    }
    Some((key, value))
}

fn scalar(field: Field<'_>, kind: &str, depth: usize) -> Option<Value> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok().map(Value::from);
    match (kind, field) {
        ("s", Field::Bytes(bytes)) => text(bytes),
        ("b", Field::Bytes(bytes)) => Some(base64::engine::general_purpose::STANDARD.encode(bytes).into()),
        ("i", Field::Number(number)) => Some(number.cast_signed().into()),
        ("B", Field::Number(number)) => Some((number != 0).into()),
        ("d", Field::Fixed64(bits)) => Some(f64::from_bits(bits).into()),
        ("T", Field::Bytes(bytes)) => time(bytes),
        ("D", Field::Bytes(bytes)) => Some(format!("{}ns", numbers(bytes)?[0]).into()),
        // Quantity and raw JSON are messages with one field, the bytes.
        ("Q", Field::Bytes(bytes)) => text(first(bytes)?),
        ("R", Field::Bytes(bytes)) => match first(bytes)? {
            [] => Some(Value::Null),
            json => serde_json::from_slice(json).ok(),
        },
        ("I", Field::Bytes(bytes)) => int_or_text(bytes),
        // The values of this map are lists wrapped in a message.
        ("authentication.v1.ExtraValue" | "authorization.v1.ExtraValue", Field::Bytes(bytes)) => {
            let items = Reader(bytes).map(|field| match field? {
                (_, Field::Bytes(item)) => text(item),
                _ => None,
            });
            items.collect::<Option<Vec<Value>>>().map(Value::Array)
        }
        (message, Field::Bytes(bytes)) => {
            let mut object = Map::new();
            read(bytes, message, &mut object, depth + 1)?;
            Some(Value::Object(object))
        }
        _ => None,
    }
}

fn first(bytes: &[u8]) -> Option<&[u8]> {
    match Reader(bytes).next() {
        None => Some(&[]),
        Some(Some((1, Field::Bytes(inner)))) => Some(inner),
        Some(_) => None,
    }
}

/// The first three numbers of a message.
fn numbers(bytes: &[u8]) -> Option<[i64; 3]> {
    let mut found = [0; 3];
    for field in Reader(bytes) {
        if let (number @ 1..=3, Field::Number(value)) = field? {
            found[usize::try_from(number).ok()? - 1] = value.cast_signed();
        }
    }
    Some(found)
}

fn time(bytes: &[u8]) -> Option<Value> {
    let [seconds, nanos, _] = numbers(bytes)?;
    if bytes.is_empty() {
        return Some(Value::Null);
    }
    let time = jiff::Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok()?;
    let form = if nanos == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
    Some(time.strftime(form).to_string().into())
}

fn int_or_text(bytes: &[u8]) -> Option<Value> {
    let [kind, number, _] = numbers(bytes)?;
    let text = Reader(bytes).find_map(|field| match field {
        Some((3, Field::Bytes(text))) => String::from_utf8(text.to_vec()).ok(),
        _ => None,
    });
    Some(if kind == 1 { text.unwrap_or_default().into() } else { number.into() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A length-delimited field.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let len = u8::try_from(bytes.len()).expect("short");
        [&[number << 3 | 2, len], bytes].concat()
    }

    fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, raw)].concat()
    }

    #[test]
    fn a_config_map_is_read() {
        let meta = [field(1, b"a"), field(3, b"")].concat();
        let entry = [field(1, b"x"), field(2, b"1")].concat();
        let raw = [field(1, &meta), field(2, &entry)].concat();
        let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}});
        assert_eq!(decode(&envelope("v1", "ConfigMap", &raw)).ok(), Some(want));
    }

    #[test]
    fn what_is_no_protobuf_is_refused() {
        for (name, bytes, code) in [
            ("empty", Vec::new(), 400),
            ("json", b"{}".to_vec(), 400),
            ("cut", envelope("v1", "ConfigMap", &[0x0a, 0x7f, 0x00]), 400),
            ("unknown kind", envelope("v9", "Thing", &[]), 415),
            ("endless number", [MAGIC, &[0xff; 16]].concat(), 400),
        ] {
            assert_eq!(decode(&bytes).err().map(|refusal| refusal.code), Some(code), "{name}");
        }
    }
}
