//! A part of ours in a JSON file of somebody else's: Mesos-DNS has one `config.json` for everything, without comments. Pure.
//!
//! ```text
//!   {"atoll: kept by the agent": ["…what was put in…"], "zk": …, "zoneResolvers": {…what was put in…, "weave": ["172.17.0.1"]}, …}
//! ```
//!
//! In: the file's text, our zones. Out: the text with them, or as it was before, octet by octet: what is taken out is what the mark says was
//! put in. The mark is a key that Mesos-DNS does not know: it passes over such keys (`records/config.go` reads by Go's `encoding/json`,
//! once, at its start). Never: changes what others wrote; guesses what is ours once somebody has written the file anew.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::{DeserializeOwned, IgnoredAny};

/// The key of what was put in.
const MARK: &str = "atoll: kept by the agent";
/// The key of zones and whom to ask for them; Go finds keys whatever their case.
const ZONES: &str = "zoneResolvers";

/// Servers by zone.
pub(super) type Zones = BTreeMap<String, Vec<String>>;

/// Keys, and where their values are.
type Members = Vec<(String, Range<usize>)>;

/// `text` with `zones`, in place of those that were put in before.
///
/// # Errors
/// It is no JSON object, somebody has one of the zones already, or has changed what was put in.
pub(super) fn put(text: &str, zones: &Zones) -> Result<String, String> {
    let base = take(text)?.unwrap_or_else(|| text.to_owned());
    let (open, members) = object(&base)?;
    let entries: Vec<String> =
        zones.iter().map(|(zone, servers)| format!("{}: {}", json(zone), json(servers))).collect();
    let entries = entries.join(", ");
    let (at, ours) = match members.iter().find(|(key, _)| key.eq_ignore_ascii_case(ZONES)) {
        None => (open, format!("{}: {{{entries}}}, ", json(ZONES))),
        Some((_, value)) => {
            let held = members_of(&base, value.start)?;
            let plain = |zone: &str| zone.trim_end_matches('.').to_ascii_lowercase();
            if let Some((zone, _)) = held.iter().find(|(zone, _)| zones.contains_key(&plain(zone))) {
                return Err(format!("`{ZONES}` has `{zone}` already, so it is somebody else's and left alone"));
            }
            (value.start + 1, if held.is_empty() { entries } else { format!("{entries}, ") })
        }
    };
    let mark = format!("{}: {}, ", json(MARK), json(&[&ours]));
    Ok([&base[..open], &mark, &base[open..at], &ours, &base[at..]].concat())
}

/// `text` without what was put in; `None` where nothing was.
///
/// # Errors
/// It is no JSON object; somebody has changed what was put in.
pub(super) fn take(text: &str) -> Result<Option<String>, String> {
    let (open, members) = object(text)?;
    let Some((_, value)) = members.iter().find(|(key, _)| key == MARK) else { return Ok(None) };
    let changed = || format!("what was put in stands under `{MARK}` and is not as it was: take both out by hand");
    let held: [String; 1] = serde_json::from_str(&text[value.clone()]).map_err(|_| changed())?;
    let mark = format!("{}: {}, ", json(MARK), json(&held));
    let rest = text[open..].strip_prefix(&mark).ok_or_else(changed)?;
    let mut found = rest.match_indices(&held[0]).map(|(at, _)| at);
    match (found.next(), found.next()) {
        (Some(at), None) => Ok(Some([&text[..open], &rest[..at], &rest[at + held[0].len()..]].concat())),
        _ => Err(changed()),
    }
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> String {
    // Strings and lists of them can be written.
    serde_json::to_string(value).unwrap_or_default()
}

/// Where the inside of the one object begins, and its members.
fn object(text: &str) -> Result<(usize, Members), String> {
    let start = text.len() - text.trim_start().len();
    let members = members_of(text, start)?;
    Ok((start + 1, members))
}

fn members_of(text: &str, start: usize) -> Result<Members, String> {
    let bad = || "it is no JSON object".to_owned();
    let blank = |at: usize| at + text[at..].len() - text[at..].trim_start().len();
    if !text[start..].starts_with('{') {
        return Err(bad());
    }
    value::<IgnoredAny>(&text[start..]).ok_or_else(bad)?;
    let (mut members, mut at) = (Vec::new(), blank(start + 1));
    while !text[at..].starts_with('}') {
        let (key, length) = value::<String>(&text[at..]).ok_or_else(bad)?;
        let colon = blank(at + length);
        let begins = blank(colon + 1);
        let (_, length) = value::<IgnoredAny>(&text[begins..]).ok_or_else(bad)?;
        members.push((key, begins..begins + length));
        at = blank(begins + length);
        if text[at..].starts_with(',') {
            at = blank(at + 1);
        }
    }
    Ok(members)
}

/// The value that `text` begins with, and how long it is.
fn value<T: DeserializeOwned>(text: &str) -> Option<(T, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let first = values.next()?.ok()?;
    Some((first, values.byte_offset()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PLAIN: &str = "{\n  \"zk\": \"zk://10.0.0.1:2181/mesos\",\n  \"timeout\": 5,\n  \"httpon\": true\n}\n";
    const WITH: &str =
        " {\"masters\": [\"10.0.0.1:5050\"], \"zoneResolvers\" : { \"weave\": [\"172.17.0.1\"] },\n\"ttl\":60 }";
    const EMPTY: &str = "{\"ZoneResolvers\": {}, \"soamname\": \"a \\\"{}\\\" b\"}";

    fn zones(server: &str) -> Zones {
        let all = ["atoll.internal", "clusterset.local"].map(|zone| (zone.to_owned(), vec![server.to_owned()]));
        all.into()
    }

    #[test]
    fn what_is_put_in_stands_beside_what_was_there_and_is_taken_out_octet_by_octet() {
        for before in [PLAIN, WITH, EMPTY] {
            let first = put(before, &zones("192.0.2.53")).unwrap();
            let read: Value = serde_json::from_str(&first).unwrap();
            let key = if before == EMPTY { "ZoneResolvers" } else { "zoneResolvers" };
            assert_eq!(read[key]["atoll.internal"], json!(["192.0.2.53"]), "{first}");
            assert_eq!(read[key].get("weave").is_some(), before == WITH);
            assert_eq!(put(&first, &zones("192.0.2.53")).unwrap(), first, "the same again changes nothing");
            let second = put(&first, &zones("192.0.2.54")).unwrap();
            assert!(second.contains("192.0.2.54") && !second.contains("192.0.2.53"), "{second}");
            assert_eq!(take(&second).unwrap().as_deref(), Some(before));
            assert_eq!(take(before), Ok(None));
        }
    }

    #[test]
    fn what_others_wrote_is_left_alone() {
        for (text, says) in [
            ("[]", "no JSON object"),
            ("{\"zk\": ", "no JSON object"),
            ("# remark\n{}", "no JSON object"),
            ("{\"zoneResolvers\": {\"Atoll.Internal.\": [\"10.0.0.1\"]}}", "somebody else's"),
        ] {
            assert!(put(text, &zones("192.0.2.53")).unwrap_err().contains(says), "{text}");
        }
        let held = put(PLAIN, &zones("192.0.2.53")).unwrap();
        let anew = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&held).unwrap()).unwrap();
        assert!(take(&anew).unwrap_err().contains("by hand"));
        assert!(put(&anew, &zones("192.0.2.53")).unwrap_err().contains("by hand"));
    }
}
