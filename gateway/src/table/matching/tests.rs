//! Which requests a match takes, and which of two matches goes first, as cases.

use serde_json::{Value, json};

use super::*;

type Headers = &'static [(&'static str, &'static str)];

fn compile(written: Value) -> Result<Match, String> {
    Match::compile(&serde_json::from_value(written).unwrap())
}

fn request(line: &str, headers: &[(&str, &str)]) -> Parts {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = http::Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn a_match_takes_what_all_its_parts_take() {
    let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
    let header = |kind: &str, value: &str| json!({"headers": [{"type": kind, "name": "X-V", "value": value}]});
    let query = |name: &str, value: &str| json!({"queryParams": [{"name": name, "value": value}]});
    let cases: Vec<(Value, &str, Headers, bool)> = vec![
        (json!({}), "GET /anything", &[], true),
        (path("Exact", "/a"), "GET /a", &[], true),
        (path("Exact", "/a"), "GET /a/", &[], false),
        (path("PathPrefix", "/a"), "GET /a", &[], true),
        (path("PathPrefix", "/a"), "GET /a/", &[], true),
        (path("PathPrefix", "/a"), "GET /a/b?c", &[], true),
        (path("PathPrefix", "/a"), "GET /ab", &[], false),
        (path("PathPrefix", "/a/"), "GET /a", &[], true),
        (path("PathPrefix", "/"), "GET /", &[], true),
        (path("RegularExpression", "/v[0-9]+"), "GET /v12", &[], true),
        (path("RegularExpression", "/v[0-9]+"), "GET /v12/x", &[], false),
        (path("RegularExpression", "/a|/b"), "GET /bc", &[], false),
        (json!({"method": "POST"}), "POST /", &[], true),
        (json!({"method": "POST"}), "GET /", &[], false),
        (header("Exact", "2"), "GET /", &[("x-v", "2")], true),
        (header("Exact", "2"), "GET /", &[("x-v", "22")], false),
        (header("Exact", "2"), "GET /", &[], false),
        (header("Exact", "1,2"), "GET /", &[("x-v", "1"), ("x-v", "2")], true),
        (header("RegularExpression", "[a-c]+"), "GET /", &[("x-v", "abc")], true),
        (header("RegularExpression", "[a-c]+"), "GET /", &[("x-v", "abcd")], false),
        (query("q", "a b"), "GET /?q=a+b", &[], true),
        (query("q", "a b"), "GET /?x=1&q=a%20b", &[], true),
        (query("q", "1"), "GET /?q=2&q=1", &[], false),
        (query("q", ""), "GET /?q", &[], true),
        (query("q", "1"), "GET /", &[], false),
        (query("q", "%"), "GET /?q=%", &[], true),
        (
            json!({"headers": [{"name": "x-v", "value": "1"}, {"name": "X-V", "value": "2"}]}),
            "GET /",
            &[("x-v", "1")],
            true,
        ),
    ];
    for (written, line, headers, takes) in cases {
        let compiled = compile(written.clone()).unwrap();
        assert_eq!(compiled.takes(&request(line, headers)), takes, "{written} {line} {headers:?}");
    }
}

#[test]
fn the_more_specific_match_goes_first() {
    let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
    let with = |mut m: Value, key: &str, value: Value| {
        m[key] = value;
        m
    };
    let named = |n: usize| (0..n).map(|i| json!({"name": format!("n{i}"), "value": "x"})).collect::<Value>();
    let ordered = [
        with(path("Exact", "/a"), "method", json!("GET")),
        path("Exact", "/a"),
        path("RegularExpression", "/a.*"),
        with(path("PathPrefix", "/abc"), "method", json!("GET")),
        with(path("PathPrefix", "/abc"), "headers", named(2)),
        with(with(path("PathPrefix", "/abc"), "headers", named(1)), "queryParams", named(2)),
        with(with(path("PathPrefix", "/abc"), "headers", named(1)), "queryParams", named(1)),
        with(path("PathPrefix", "/abc"), "queryParams", named(3)),
        path("PathPrefix", "/abc"),
        with(path("PathPrefix", "/ab"), "method", json!("GET")),
        path("PathPrefix", "/"),
    ];
    for pair in ordered.windows(2) {
        let (a, b) = (compile(pair[0].clone()).unwrap(), compile(pair[1].clone()).unwrap());
        assert_eq!((a.order(&b), b.order(&a)), (Ordering::Less, Ordering::Greater), "{} before {}", pair[0], pair[1]);
    }
}

#[test]
fn what_does_not_compile_is_refused_with_its_reason() {
    for (written, why) in [
        (json!({"path": {"type": "RegularExpression", "value": "("}}), "regular expression `(`"),
        (json!({"path": {"type": "RegularExpression", "value": "((a{1000}){1000}){1000}"}}), "regular expression `((a"),
        (json!({"path": {"type": "Odd", "value": "/"}}), "path match type `Odd` is unknown"),
        (json!({"method": "G E T"}), "method `G E T` is none"),
        (json!({"headers": [{"name": "a b", "value": "x"}]}), "header name `a b` is none"),
        (json!({"queryParams": [{"name": "a", "type": "Odd", "value": "x"}]}), "match type `Odd` of `a` is unknown"),
    ] {
        let refused = compile(written.clone()).unwrap_err();
        assert!(refused.starts_with(why), "{written}: {refused}");
    }
}

#[test]
fn what_takes_every_request_is_there_once() {
    let prefix = |value: &str| json!({"path": {"type": "PathPrefix", "value": value}});
    let shared = |written: Value| compile(written).unwrap().shared();
    assert!(Arc::ptr_eq(&shared(json!({})), &shared(prefix("/"))));
    for other in [prefix("/a"), json!({"path": {"type": "Exact", "value": "/"}}), json!({"method": "GET"})] {
        assert!(!Arc::ptr_eq(&shared(json!({})), &shared(other.clone())), "{other}");
    }
}
