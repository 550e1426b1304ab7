//! What people write that decides who answers: matches of routes, annotations of Ingresses.
//!
//! In: lines. A rule: path, header, query, method, then a request's head. An Ingress: host, path and its type, then annotations. Checked: the
//! short way of a request and the long one decide alike, and of two matches one goes first; Ingresses become the same each time, every match
//! of theirs compiles or is refused, and where something that protects is not honoured nothing stays open.

use std::cmp::Ordering;
use std::sync::Arc;

use atoll_api::ingress::{Options, translate};
use atoll_api::kinds::gateway::HTTPRouteMatch;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Map, Value, json};

use crate::http1::fuzzed::{Head, Written, parts};
use crate::policy::normal;
use crate::table::{Asking as _, Match};

/// `name=value`, the kind in front.
fn named(line: &str) -> Option<Value> {
    let (name, value) = line.get(1..)?.split_once('=')?;
    let kind = if line.starts_with('R') { "RegularExpression" } else { "Exact" };
    Some(json!([{"type": kind, "name": name, "value": value}]))
}

fn written(lines: &[&str]) -> Option<HTTPRouteMatch> {
    let [path, header, query, method] = *lines.first_chunk()?;
    let kind = match path.bytes().next()? {
        b'E' => "Exact",
        b'R' => "RegularExpression",
        _ => "PathPrefix",
    };
    let mut all = Map::from_iter([("path".to_owned(), json!({"type": kind, "value": path.get(1..)?}))]);
    all.extend(named(header).map(|value| ("headers".to_owned(), value)));
    all.extend(named(query).map(|value| ("queryParams".to_owned(), value)));
    if !method.is_empty() {
        all.insert("method".to_owned(), method.into());
    }
    serde_json::from_value(Value::Object(all)).ok()
}

/// A rule and a head.
///
/// # Panics
/// When a rule does not hold.
pub fn matching(octets: &[u8]) {
    let mut rest = octets;
    let mut lines = Vec::new();
    while lines.len() < 4 {
        let Some(end) = rest.iter().position(|b| *b == b'\n') else { return };
        let Ok(line) = std::str::from_utf8(&rest[..end]) else { return };
        lines.push(line);
        rest = &rest[end + 1..];
    }
    let Some(Ok(rule)) = written(&lines).map(|rule| Match::compile(&rule)) else { return };
    assert_eq!(rule.order(&rule), Ordering::Equal, "as the same");
    let Ok(every) = Match::compile(&HTTPRouteMatch::default()) else { return };
    assert_eq!(rule.order(&every), every.order(&rule).reverse(), "one of them first");
    let mut head = Head::default();
    if head.request(rest, 100) != Ok(Some(())) {
        return;
    }
    let Ok(long) = parts(&head, rest) else { return };
    let Ok(target) = std::str::from_utf8(head.target(rest)) else { return };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // What is not in its form goes the long way.
    if !path.starts_with('/') || !matches!(normal(path), Ok(None)) {
        return;
    }
    let short = Written { head: &head, bytes: rest, path, query };
    assert_eq!((short.path(), short.query(), short.method()), (long.path(), long.query(), long.method()), "{target}");
    assert_eq!(rule.takes(&short), rule.takes(&long), "the short way and the long one");
    assert!(every.takes(&short), "everything");
}

/// An Ingress with annotations.
///
/// # Panics
/// When a rule does not hold.
pub fn annotations(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let mut lines = text.lines();
    let (Some(host), Some(path)) = (lines.next(), lines.next()) else { return };
    let kind = match path.bytes().next() {
        Some(b'E') => "Exact",
        Some(b'I') => "ImplementationSpecific",
        _ => "Prefix",
    };
    let annotated = lines.take(8).filter_map(|line| line.split_once(": "));
    let annotations: Map<String, Value> =
        annotated.map(|(name, value)| (format!("nginx.ingress.kubernetes.io/{name}"), value.into())).collect();
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": path.get(1..).unwrap_or("/"), "pathType": kind, "backend": backend});
    let read = serde_json::from_value::<Ingress>(json!({
        "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
        "spec": {"ingressClassName": "atoll", "rules": [{"host": host, "http": {"paths": [path]}}]},
    }));
    let Ok(ingress) = read else { return };
    let all = [Arc::new(ingress)];
    let options =
        Options { namespace: "infra".into(), name: "main".into(), class: "atoll".into(), default_certificate: None };
    let translation = translate(&all, &options);
    assert_eq!(translation, translate(&all, &options), "the same each time");
    for part in translation.parts.values() {
        let rules = || part.routes.iter().flat_map(|route| &route.spec.rules);
        for rule in rules() {
            // What can't be compiled refuses its rule, and says why.
            rule.matches.iter().for_each(|m| drop(Match::compile(m)));
        }
        let closes = part.findings.iter().any(|finding| finding.closes);
        let open = rules().filter_map(|rule| rule.name.as_ref()).any(|name| !part.closed.contains(name));
        assert!(!(closes && open), "what protects and is not honoured closes: {:?}", part.findings);
    }
}
