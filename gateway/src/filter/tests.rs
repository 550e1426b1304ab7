//! What filters make of requests and answers, as cases.

use atoll_api::kinds::gateway::{BackendObjectReference, HTTPRouteFilter};
use serde_json::{Value, json};

use super::*;

/// Leads every reference to the upstream of that number; `gone` nowhere.
struct Numbers;

impl Resolve for Numbers {
    fn resolve(&mut self, target: &BackendObjectReference) -> Option<usize> {
        target.name.parse().ok()
    }
}

fn made(written: Value, prefixed: bool) -> Made {
    let written: HTTPRouteFilter = serde_json::from_value(written).unwrap();
    make(&written, prefixed, &mut Numbers)
}

fn head(uri: &str) -> request::Parts {
    http::Request::builder().uri(uri).header("host", "a.test").body(()).unwrap().into_parts().0
}

const MATCHED: Matched<'_> = Matched { prefix: Some("/old"), scheme: "http", host: "a.test", port: 8080 };

#[test]
fn paths_are_rewritten() {
    let full = |path: &str| json!({"type": "ReplaceFullPath", "replaceFullPath": path});
    let prefix = |path: &str| json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": path});
    for (path, uri, expected) in [
        (full("/new"), "/old/x?q=1", "/new?q=1"),
        (full("new"), "/old", "/new"),
        (prefix("/new"), "/old/x", "/new/x"),
        (prefix("/new/"), "/old/x", "/new/x"),
        (prefix("/new"), "/old", "/new"),
        (prefix("/new"), "/old/", "/new/"),
        (prefix("/"), "/old/x", "/x"),
        (prefix("/"), "/old", "/"),
        (prefix(""), "/old?q", "/?q"),
    ] {
        let filter = made(json!({"type": "URLRewrite", "urlRewrite": {"path": path}}), true).unwrap().unwrap();
        let mut head = head(uri);
        assert!(filter.request(&mut head, &MATCHED).is_none());
        assert_eq!(head.uri.to_string(), expected, "{path} {uri}");
    }
}

#[test]
fn redirects_keep_what_they_do_not_name() {
    for (settings, status, location) in [
        (json!({}), 302, "http://a.test:8080/old/x?q=1"),
        (json!({"scheme": "https"}), 302, "https://a.test/old/x?q=1"),
        (json!({"scheme": "http"}), 302, "http://a.test/old/x?q=1"),
        (json!({"scheme": "https", "port": 8443}), 302, "https://a.test:8443/old/x?q=1"),
        (json!({"port": 80}), 302, "http://a.test/old/x?q=1"),
        (json!({"hostname": "b.test", "statusCode": 308}), 308, "http://b.test:8080/old/x?q=1"),
        (
            json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}),
            302,
            "http://a.test:8080/new/x?q=1",
        ),
    ] {
        let written = json!({"type": "RequestRedirect", "requestRedirect": settings});
        let filter = made(written, true).unwrap().unwrap();
        let answer = filter.request(&mut head("/old/x?q=1"), &MATCHED).unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (status, &location.parse::<HeaderValue>().unwrap()),
            "{settings}"
        );
    }
}

#[test]
fn headers_are_set_then_added_then_removed() {
    let change = json!({"set": [{"name": "a", "value": "1"}], "add": [{"name": "b", "value": "2"}], "remove": ["c"]});
    let filter =
        made(json!({"type": "RequestHeaderModifier", "requestHeaderModifier": change}), true).unwrap().unwrap();
    let mut head = head("/");
    for (name, value) in [("a", "x"), ("a", "y"), ("b", "1"), ("c", "z")] {
        head.headers.append(name, value.parse().unwrap());
    }
    filter.request(&mut head, &MATCHED);
    let all = |name: &str| head.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>().join(",");
    assert_eq!([all("a"), all("b"), all("c")], ["1", "1,2", ""]);
}

#[test]
fn mirrors_know_their_share() {
    let mirror = |extra: Value, name: &str| {
        let mut settings = json!({"backendRef": {"name": name}});
        settings.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        made(json!({"type": "RequestMirror", "requestMirror": settings}), true)
    };
    for (extra, copies, of) in [
        (json!({}), 100, 100),
        (json!({"percent": 20}), 20, 100),
        (json!({"fraction": {"numerator": 1, "denominator": 1000}}), 1, 1000),
        (json!({"fraction": {"numerator": 5}}), 5, 100),
    ] {
        let filter = mirror(extra.clone(), "7").unwrap().unwrap();
        assert_eq!(filter.mirror(), Some(Mirror { upstream: 7, of, copies }), "{extra}");
    }
    assert!(mirror(json!({}), "gone").unwrap().is_none(), "a reference that leads nowhere is noted, not fatal");
    assert!(mirror(json!({"fraction": {"numerator": 1, "denominator": 0}}), "7").is_err());
}

#[test]
fn what_cannot_be_made_is_refused_with_its_reason() {
    let prefix = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"});
    for (written, prefixed, why) in [
        (json!({"type": "Odd"}), true, "filter `Odd`: unknown"),
        (json!({"type": "CORS"}), true, "filter `CORS`: its settings are absent"),
        (json!({"type": "URLRewrite"}), true, "filter `URLRewrite`: its settings are absent"),
        (json!({"type": "URLRewrite", "urlRewrite": {"path": prefix}}), false, "ReplacePrefixMatch: all matches"),
        (
            json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "Odd"}}}),
            true,
            "path modifier `Odd` is unknown",
        ),
        (json!({"type": "RequestRedirect", "requestRedirect": {"scheme": "ftp"}}), true, "scheme `ftp`"),
        (json!({"type": "RequestRedirect", "requestRedirect": {"statusCode": 200}}), true, "status 200 is no redirect"),
        (
            json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["a b"]}}),
            true,
            "header name `a b`",
        ),
        (
            json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "a", "value": "b\n"}]}}),
            true,
            "value of `a` is none",
        ),
    ] {
        let refused = made(written.clone(), prefixed).unwrap_err();
        assert_eq!(refused.reason, "UnsupportedValue");
        assert!(refused.message.starts_with(why), "{written}: {}", refused.message);
    }
}

#[test]
fn every_filter_of_a_policy_is_a_row_and_described() {
    let of_policies = FILTERS.iter().filter(|row| matches!(row.make, Make::Policy { .. })).map(|row| row.name);
    let described = PARAMETERS.iter().map(|parameters| parameters.filter);
    let sorted = |names: &mut dyn Iterator<Item = &'static str>| {
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        names
    };
    assert_eq!(sorted(&mut { of_policies }), sorted(&mut { described }));
    assert!(place("deny") < place("basic") && place("basic") < place(AUTHENTICATED));
    assert_eq!(place("unheard"), 0, "what is unknown refuses first");
}
