//! Maps of host names to backends: what of a route such a map can say. Pure.
//!
//! In: rules of routes. Out: host names for a map, or the fields that it has no word for.

use std::collections::BTreeMap;

use atoll_api::provider::{Refused, Route};

/// Entries of maps, by file.
#[derive(Default)]
pub(super) struct Maps<'a>(pub(super) BTreeMap<&'a str, BTreeMap<String, String>>);

impl<'a> Maps<'a> {
    /// Enters the host names of a rule into a map. Whether all of it is said there; else it is refused.
    pub(super) fn enter(&mut self, file: &'a str, route: &Route, target: &str, refused: &mut Vec<Refused>) -> bool {
        let Some(hosts) = hosts(route, refused) else { return false };
        let entries = self.0.entry(file).or_default();
        for host in hosts {
            match entries.get(&host) {
                Some(other) if other != target => {
                    let message = format!(
                        "`{host}`: an older route leads to `{other}` from there, and a map has one word for a name"
                    );
                    let field = "spec.hostnames".to_owned();
                    refused.push(Refused { owner: route.owner.clone(), field, message });
                }
                _ => drop(entries.insert(host, target.to_owned())),
            }
        }
        true
    }
}

/// The host names of a rule, if it asks for nothing but these.
pub(super) fn hosts(route: &Route, refused: &mut Vec<Refused>) -> Option<Vec<String>> {
    let before = refused.len();
    let mut refuse = |field: String, message: &str| {
        refused.push(Refused { owner: route.owner.clone(), field, message: message.to_owned() });
    };
    for (at, one) in route.matches.iter().enumerate() {
        for (name, value) in one.as_object().into_iter().flatten() {
            let whole = name == "path"
                && value["value"] == "/"
                && value["type"].as_str().unwrap_or("PathPrefix") == "PathPrefix";
            if !whole {
                refuse(
                    format!("{}.matches[{at}].{name}", route.field),
                    "HAProxy's map knows host names alone: leave it out, or serve the route by Atoll",
                );
            }
        }
    }
    if !route.filters.is_empty() {
        refuse(format!("{}.filters", route.field), "filters can't be made while HAProxy runs");
    }
    for name in route.settings.keys() {
        refuse(format!("{}.{name}", route.field), "it can't be set while HAProxy runs");
    }
    if route.hostnames.is_empty() {
        refuse("spec.hostnames".to_owned(), "HAProxy's map needs host names");
    }
    for host in route.hostnames.iter().filter(|host| host.starts_with('*')) {
        refuse("spec.hostnames".to_owned(), &format!("`{host}`: HAProxy's map has whole names only"));
    }
    (refused.len() == before).then(|| route.hostnames.iter().map(|host| host.to_ascii_lowercase()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_map_cannot_say_is_refused_by_field() {
        for (case, route, fields) in [
            ("plain", json!({"hostnames": ["A.example"]}), ""),
            ("root", json!({"hostnames": ["a"], "matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}), ""),
            (
                "path",
                json!({"hostnames": ["a"], "matches": [{"path": {"value": "/x"}}]}),
                "spec.rules[0].matches[0].path",
            ),
            ("header", json!({"hostnames": ["a"], "matches": [{"headers": []}]}), "spec.rules[0].matches[0].headers"),
            ("filter", json!({"hostnames": ["a"], "filters": [{}]}), "spec.rules[0].filters"),
            ("timeouts", json!({"hostnames": ["a"], "settings": {"timeouts": {}}}), "spec.rules[0].timeouts"),
            ("no host", json!({}), "spec.hostnames"),
            ("wildcard", json!({"hostnames": ["*.a"]}), "spec.hostnames"),
        ] {
            let mut route = route;
            route["owner"] = json!({"kind": "HTTPRoute", "namespace": "shop", "name": "web"});
            (route["field"], route["backend"]) = (json!("spec.rules[0]"), json!("b"));
            let mut refused = Vec::new();
            let hosts = hosts(&serde_json::from_value(route).unwrap(), &mut refused);
            let said: Vec<&str> = refused.iter().map(|r| r.field.as_str()).collect();
            assert_eq!(said.join(" "), fields, "{case}");
            assert_eq!(hosts.is_some(), fields.is_empty(), "{case}");
        }
    }

    #[test]
    fn a_name_stays_with_the_route_that_was_first() {
        let route = |name: &str| {
            let owner = json!({"kind": "HTTPRoute", "namespace": "shop", "name": name});
            let said = json!({"owner": owner, "field": "spec.rules[0]", "hostnames": ["a.example"], "backend": name});
            serde_json::from_value::<Route>(said).unwrap()
        };
        let (mut maps, mut refused) = (Maps::default(), Vec::new());
        for name in ["one", "two", "one"] {
            assert!(maps.enter("/m", &route(name), name, &mut refused));
        }
        assert_eq!(maps.0["/m"]["a.example"], "one");
        let said: Vec<String> = refused.iter().map(|r| format!("{} {}", r.owner, r.field)).collect();
        assert_eq!(said, ["HTTPRoute shop/two spec.hostnames"]);
    }
}
