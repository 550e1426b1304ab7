//! What Ingresses become: cases as data.

use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

use super::table::{ANNOTATIONS, Does};
use super::*;

fn options() -> Options {
    Options {
        namespace: "system".to_owned(),
        name: "entry".to_owned(),
        class: "atoll".to_owned(),
        default_certificate: None,
    }
}

/// An Ingress of `shop` with the annotations, for the paths of `a.test`.
fn ingress(name: &str, annotations: &[(&str, &str)], paths: &[(&str, &str)]) -> Value {
    let annotations: BTreeMap<String, &str> = annotations.iter().map(|(n, v)| (format!("{PREFIX}{n}"), *v)).collect();
    let of = |(path, kind): &(&str, &str)| json!({"path": path, "pathType": kind, "backend": {"service": {"name": name, "port": {"number": 80}}}});
    let paths: Vec<Value> = paths.iter().map(of).collect();
    json!({"metadata": {"name": name, "namespace": "shop", "annotations": annotations, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"ingressClassName": "atoll", "rules": [{"host": "a.test", "http": {"paths": paths}}]}})
}

fn made(all: &[Value]) -> Translation {
    let all: Vec<Arc<Ingress>> = all.iter().map(|one| Arc::new(serde_json::from_value(one.clone()).unwrap())).collect();
    translate(&all, &options())
}

fn part<'a>(translation: &'a Translation, name: &str) -> &'a Part {
    &translation.parts[&("shop".to_owned(), name.to_owned())]
}

const ROOT: &[(&str, &str)] = &[("/", "Prefix")];

/// `route: section match -> where`, one line a rule.
fn told(part: &Part) -> Vec<String> {
    let mut lines = Vec::new();
    for route in &part.routes {
        let at: Vec<&str> = route.spec.parent_refs.iter().filter_map(|p| p.section_name.as_deref()).collect();
        for rule in &route.spec.rules {
            let path = rule.matches[0].path.clone().unwrap_or_default();
            let headers: Vec<String> =
                rule.matches[0].headers.iter().map(|h| format!(" {}={}", h.name, h.value)).collect();
            let redirect = rule.filters.iter().find_map(|f| f.request_redirect.as_ref()).map(|to| {
                let path = to.path.as_ref().and_then(|p| p.replace_full_path.clone()).unwrap_or_default();
                format!(
                    "{} {}://{}{path}",
                    to.status_code.unwrap(),
                    to.scheme.as_deref().unwrap_or(""),
                    to.hostname.as_deref().unwrap_or("")
                )
            });
            let backends: Vec<String> = rule
                .backend_refs
                .iter()
                .map(|b| format!("{}{}", b.target.name, b.weight.map(|w| format!("*{w}")).unwrap_or_default()))
                .collect();
            lines.push(format!(
                "{}: {} {}{} -> {}",
                at.join(","),
                path.match_type.unwrap_or_else(|| "any".to_owned()),
                path.value.unwrap_or_default(),
                headers.concat(),
                redirect.unwrap_or_else(|| backends.join(" "))
            ));
        }
    }
    lines
}

#[test]
fn annotations_become_rules() {
    let tls = |mut one: Value| {
        one["spec"]["tls"] = json!([{"hosts": ["a.test"], "secretName": "a"}]);
        one
    };
    let both = &[("/a", "Prefix"), ("/b", "Exact")][..];
    for (name, written, expected) in [
        (
            "paths by type",
            ingress("web", &[], both),
            &["http-a.test: PathPrefix /a -> web", "http-a.test: Exact /b -> web"][..],
        ),
        (
            "a certificate sends to HTTPS",
            tls(ingress("web", &[], ROOT)),
            &["http-a.test: PathPrefix / -> 308 https://", "https-a.test: PathPrefix / -> web"],
        ),
        (
            "unless it is not to",
            tls(ingress("web", &[("ssl-redirect", "false")], ROOT)),
            &["http-a.test,https-a.test: PathPrefix / -> web"],
        ),
        (
            "or it always is",
            ingress("web", &[("force-ssl-redirect", "true")], ROOT),
            &["http-a.test: PathPrefix / -> 308 https://"],
        ),
        (
            "app-root",
            ingress("web", &[("app-root", "/app")], ROOT),
            &["http-a.test: Exact / -> 302 :///app?", "http-a.test: PathPrefix / -> web"],
        ),
        (
            "permanent-redirect",
            ingress("web", &[("permanent-redirect", "https://b.test/x")], ROOT),
            &["http-a.test: PathPrefix / -> 301 https://b.test/x?"],
        ),
        (
            "temporal-redirect with the request's path",
            ingress("web", &[("temporal-redirect", "https://b.test$request_uri")], ROOT),
            &["http-a.test: PathPrefix / -> 302 https://b.test"],
        ),
        (
            "from-to-www-redirect",
            ingress("web", &[("from-to-www-redirect", "true")], ROOT),
            &["http-a.test: PathPrefix / -> web", "http-www.a.test: any  -> 308 ://a.test"],
        ),
        (
            "server-alias",
            ingress("web", &[("server-alias", "b.test")], ROOT),
            &["http-a.test: PathPrefix / -> web", "http-b.test: PathPrefix / -> web"],
        ),
        (
            "use-regex",
            ingress("web", &[("use-regex", "true")], &[("/a.+", "ImplementationSpecific")]),
            &["http-a.test: RegularExpression (?i:/a.+).* -> web"],
        ),
    ] {
        let made = made(&[written]);
        assert_eq!(told(part(&made, "web")), expected, "{name}");
        assert_eq!(part(&made, "web").findings, [], "{name}");
    }
}

#[test]
fn annotations_become_filters() {
    for (annotations, expected) in [
        (
            &[("whitelist-source-range", "10.0.0.0/8, 1.2.3.4")][..],
            json!({"filter": "allow", "cidrs": ["10.0.0.0/8", "1.2.3.4"]}),
        ),
        (&[("denylist-source-range", "10.0.0.0/8")], json!({"filter": "deny", "cidrs": ["10.0.0.0/8"]})),
        (&[("limit-rps", "5")], json!({"filter": "rate", "requests": 5, "per": "1s", "burst": 26, "key": "clientIP"})),
        (
            &[("limit-rpm", "5"), ("limit-burst-multiplier", "1")],
            json!({"filter": "rate", "requests": 5, "per": "1m", "burst": 6, "key": "clientIP"}),
        ),
        (&[("limit-connections", "2")], json!({"filter": "connections", "max": 2, "key": "clientIP"})),
        (&[("proxy-body-size", "8m")], json!({"filter": "sizes", "requestBytesMax": 8_388_608})),
        (
            &[("limit-rate", "10"), ("limit-rate-after", "1")],
            json!({"filter": "bandwidth", "bytesPerSecond": 10240, "burstBytes": 1024}),
        ),
        (
            &[("auth-type", "basic"), ("auth-secret", "users"), ("auth-realm", "r")],
            json!({"filter": "basic", "secretRef": {"name": "users"}, "realm": "r"}),
        ),
        (
            &[("auth-url", "http://auth.test/check"), ("auth-response-headers", "X-User")],
            json!({"filter": "forwardAuth", "url": "http://auth.test/check", "allowedResponseHeaders": ["X-User"]}),
        ),
        (
            &[
                ("auth-url", "http://auth.shop.svc.cluster.local:81/check"),
                ("auth-signin", "https://in.test/start?rd=$escaped_request_uri"),
            ],
            json!({"filter": "forwardAuth", "backendRef": {"name": "auth", "port": 81}, "authPath": "/check", "signinUrl": "https://in.test/start", "signinReturn": "Path"}),
        ),
        (
            &[
                ("auth-url", "https://$host/oauth2/auth"),
                ("auth-signin", "https://$host/oauth2/start?rd=$scheme://$host$request_uri"),
            ],
            json!({"filter": "forwardAuth", "url": "https://a.test/oauth2/auth", "signinUrl": "/oauth2/start"}),
        ),
        (&[("rewrite-target", "/$1")], json!({"filter": "path", "pattern": "^(?i:/(.*)).*$", "substitution": "/${1}"})),
        (
            &[
                ("enable-cors", "true"),
                ("cors-allow-origin", "https://b.test"),
                ("cors-allow-methods", "GET"),
                ("cors-allow-headers", "X"),
                ("cors-max-age", "5"),
            ],
            json!({"filter": "cors", "allowOrigins": ["https://b.test"], "allowMethods": ["GET"], "allowHeaders": ["X"], "allowCredentials": true, "maxAge": 5}),
        ),
    ] {
        let made = made(&[ingress("web", annotations, &[("/(.*)", "ImplementationSpecific")])]);
        let part = part(&made, "web");
        assert_eq!(part.findings, [], "{annotations:?}");
        assert_eq!(
            part.steps.iter().map(|s| serde_json::to_value(&s.step).unwrap()).collect::<Vec<_>>(),
            [expected],
            "{annotations:?}"
        );
        assert!(part.closed.is_empty(), "{annotations:?}");
    }
}

#[test]
fn who_asks_the_host_of_the_request_asks_each_host_that_is_a_name() {
    let rule = |host: &str| json!({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}});
    let mut object = ingress("web", &[("auth-url", "http://$host/check")], ROOT);
    object["spec"]["rules"] = json!([rule("a.test"), rule("b.test"), rule("*.c.test")]);
    let made = made(&[object]);
    let part = part(&made, "web");
    let asked: Vec<_> =
        part.steps.iter().map(|s| (s.step.parameters["url"].as_str().unwrap(), s.rules.len())).collect();
    assert_eq!(asked, [("http://a.test/check", 1), ("http://b.test/check", 1)]);
    let names = |host: &str| -> Vec<&String> {
        let routes = part.routes.iter().filter(|route| route.spec.hostnames == [host]);
        routes.flat_map(|route| route.spec.rules.iter().filter_map(|rule| rule.name.as_ref())).collect()
    };
    assert_eq!(part.closed.iter().collect::<Vec<_>>(), names("*.c.test"), "there is no one host to ask");
    assert!(part.findings.iter().any(|f| f.closes && f.what == "auth-url"), "{:?}", part.findings);
    assert_eq!(part.steps[0].rules.iter().collect::<Vec<_>>(), names("a.test"));
}

#[test]
fn what_is_not_honoured_is_said_and_what_protects_closes() {
    for (annotations, what, closes) in [
        (&[("configuration-snippet", "add_header X 1;")][..], "configuration-snippet", false),
        (&[("configuration-snippet", "deny all;")], "configuration-snippet", true),
        (&[("auth-snippet", "x")], "auth-snippet", true),
        (&[("auth-tls-secret", "shop/ca")], "auth-tls-secret", true),
        (&[("auth-type", "digest"), ("auth-secret", "s")], "auth-type", true),
        (&[("auth-type", "basic"), ("auth-secret", "other/s")], "auth-secret", true),
        (&[("auth-url", "https://$remote_addr/check")], "auth-url", true),
        (&[("auth-url", "https://$host/check/$uri")], "auth-url", true),
        (&[("limit-rps", "many")], "limit-rps", true),
        (&[("whitelist-source-range", "10.0.0.0/33")], "whitelist-source-range", true),
        (&[("whitelist-source-range", " , ")], "whitelist-source-range", true),
        (&[("denylist-source-range", "1.2.3.4, all")], "denylist-source-range", true),
        (&[("server-alias", "~^www")], "server-alias", false),
        (&[("upstream-vhost", "$host")], "upstream-vhost", false),
        (&[("x-forwarded-prefix", "/a\nb")], "x-forwarded-prefix", false),
        (&[("affinity", "cookie"), ("session-cookie-name", "a b")], "session-cookie-name", false),
        (&[("proxy-body-size", "big")], "proxy-body-size", true),
        (&[("mirror-target", "https://b.test")], "mirror-target", false),
        (&[("upstream-hash-by", "$request_time")], "upstream-hash-by", false),
        (&[("custom-http-errors", "404")], "custom-http-errors", false),
        (&[("custom-http-errors", "200"), ("default-backend", "pages")], "custom-http-errors", false),
        (&[("proxy-ssl-secret", "shop/ca")], "proxy-ssl-verify", true),
        (&[("proxy-ssl-verify", "on")], "proxy-ssl-verify", true),
        (&[("ssl-passthrough", "true"), ("limit-rps", "1")], "ssl-passthrough", true),
        (&[("some-new-auth", "x")], "some-new-auth", true),
        (&[("some-new-colour", "x")], "some-new-colour", false),
        (&[("rewrite-target", "/$request_uri")], "rewrite-target", true),
        (&[("permanent-redirect", "gopher://x")], "permanent-redirect", false),
    ] {
        let made = made(&[ingress("web", annotations, ROOT)]);
        let part = part(&made, "web");
        let found = part
            .findings
            .iter()
            .find(|finding| finding.what == what)
            .unwrap_or_else(|| panic!("{annotations:?}: nothing said"));
        assert_eq!(found.closes, closes, "{annotations:?}: {found}");
        assert!(found.to_string().contains("the Gateway API way: "), "{found}");
        assert_eq!(!part.closed.is_empty(), closes, "{annotations:?}");
    }
}

#[test]
fn an_expression_that_cannot_be_carried_out_closes_what_it_would_mean() {
    let made =
        made(&[ingress("web", &[("use-regex", "true")], &[("/a(?!b)", "ImplementationSpecific"), ("/c", "Prefix")])]);
    let part = part(&made, "web");
    assert_eq!(part.closed, ["path-0"]);
    assert_eq!(told(part)[0], "http-a.test: RegularExpression (?i:/a).* -> web");
}

#[test]
fn several_ingresses_share_a_host_and_the_older_keeps_a_path() {
    let mut newer = ingress("newer", &[], &[("/", "Prefix"), ("/n", "Prefix")]);
    newer["metadata"]["creationTimestamp"] = json!("2026-02-01T00:00:00Z");
    let regex = ingress("regex", &[("use-regex", "true")], &[("/r", "Prefix")]);
    let made = made(&[newer, regex, ingress("web", &[], ROOT)]);
    assert_eq!(
        told(part(&made, "web")),
        ["http-a.test: RegularExpression (?i:/).* -> web"],
        "one makes all expressions"
    );
    assert_eq!(told(part(&made, "newer")), ["http-a.test: RegularExpression (?i:/n).* -> newer"]);
    assert!(part(&made, "newer").findings[0].why.contains("shop/web"), "{:?}", part(&made, "newer").findings);
}

#[test]
fn a_canary_takes_its_part_of_the_main_one() {
    let main = ingress("web", &[], ROOT);
    for (annotations, expected) in [
        (&[("canary-weight", "20")][..], &["PathPrefix / -> web*80 new*20"][..]),
        (&[("canary-weight", "20"), ("canary-weight-total", "200")], &["PathPrefix / -> web*180 new*20"]),
        (
            &[("canary-by-header", "x")],
            &["PathPrefix / x=always -> new", "PathPrefix / x=never -> web", "PathPrefix / -> web"],
        ),
        (
            &[("canary-by-header", "x"), ("canary-by-header-value", "v")],
            &["PathPrefix / x=v -> new", "PathPrefix / -> web"],
        ),
        (
            &[("canary-by-header", "x"), ("canary-by-header-pattern", "v+")],
            &["PathPrefix / x=.*(?:v+).* -> new", "PathPrefix / -> web"],
        ),
        (
            &[("canary-by-cookie", "c")],
            &[
                r"PathPrefix / cookie=(?:.*;\s*)?c=always(?:\s*;.*)? -> new",
                r"PathPrefix / cookie=(?:.*;\s*)?c=never(?:\s*;.*)? -> web",
                "PathPrefix / -> web",
            ],
        ),
    ] {
        let mut all = vec![("canary", "true")];
        all.extend(annotations);
        let made = made(&[main.clone(), ingress("new", &all, ROOT)]);
        let told = told(part(&made, "web"));
        let expected: Vec<String> = expected.iter().map(|line| format!("http-a.test: {line}")).collect();
        assert_eq!(told, expected, "{annotations:?}");
        assert!(part(&made, "new").routes.is_empty());
    }
    let alone = made(&[ingress("new", &[("canary", "true")], ROOT)]);
    assert!(part(&alone, "new").findings[0].why.contains("no other Ingress"));
    assert!(alone.gateway.is_none());
}

#[test]
fn what_a_canary_says_beside_is_ignored_and_said_and_never_opens() {
    let login = ("auth-url", "http://login.shop/check");
    let findings = |made: &Translation| -> Vec<String> {
        let found = &part(made, "new").findings;
        found.iter().filter(|f| f.what != "canary").map(|f| format!("{} {}", f.what, f.closes)).collect()
    };
    let canary = |more: &[(&str, &str)], paths: &[(&str, &str)]| {
        let mut all = vec![("canary", "true"), ("canary-weight", "20")];
        all.extend(more);
        ingress("new", &all, paths)
    };
    let more =
        [login, ("limit-rps", "5"), ("proxy-read-timeout", "7"), ("proxy-buffering", "on"), ("enable-cors", "false")];
    let both = made(&[ingress("web", &[], ROOT), canary(&more, ROOT)]);
    assert_eq!(findings(&both), ["auth-url false", "limit-rps false", "proxy-read-timeout false"]);
    let why = &part(&both, "new").findings[0].why;
    assert!(why.contains("the main Ingress `shop/web` counts, which does not have it"), "{why}");
    assert_eq!(told(part(&both, "web")), ["http-a.test: PathPrefix / -> web*80 new*20"]);

    let same = made(&[ingress("web", &[login, ("limit-rps", "9")], ROOT), canary(&more[..2], ROOT)]);
    assert_eq!(findings(&same), ["limit-rps false"], "what the main one has, too, is no loss");
    assert!(part(&same, "new").findings[0].why.contains("another value"));
    // As the main one's it would close; here it does not.
    let unknown = made(&[ingress("web", &[], ROOT), canary(&[("auth-method", "PUT")], ROOT)]);
    assert_eq!(findings(&unknown), ["auth-method false"]);
    assert!(part(&unknown, "web").closed.is_empty() && part(&unknown, "new").closed.is_empty());

    let alone = made(&[ingress("web", &[], ROOT), canary(&[login, ("app-root", "/a")], &[("/admin", "Prefix")])]);
    assert_eq!(findings(&alone), ["app-root false", "auth-url true"]);
    assert_eq!(told(part(&alone, "new")), ["http-a.test: PathPrefix /admin -> new"]);
    assert_eq!(part(&alone, "new").closed, ["path-0"], "it answers 503 instead of what the root has");
    let open = made(&[ingress("web", &[], ROOT), canary(&[("app-root", "/a")], &[("/admin", "Prefix")])]);
    assert!(part(&open, "new").routes.is_empty(), "nothing would protect it");
    let nobody = made(&[canary(&[login], ROOT)]);
    assert_eq!((told(part(&nobody, "new")).len(), &part(&nobody, "new").closed[..]), (1, &["path-0".to_owned()][..]));
}

#[test]
fn hosts_have_listeners_with_their_certificates() {
    let mut one = ingress("web", &[], ROOT);
    let any = json!({"http": one["spec"]["rules"][0]["http"]});
    one["spec"]["rules"].as_array_mut().unwrap().push(any);
    one["spec"]["tls"] = json!([{"hosts": ["*.test"], "secretName": "wild"}]);
    let made = made(&[one]);
    let listeners: Vec<String> =
        made.gateway.unwrap().listeners.iter().map(|l| format!("{} {:?}", l.name, l.hostname)).collect();
    assert_eq!(listeners, ["http None", "http-a.test Some(\"a.test\")", "https-a.test Some(\"a.test\")"]);
    assert_eq!(made.grants["shop"].to[0].name.as_deref(), Some("wild"));
}

#[test]
fn a_default_backend_takes_what_no_path_does() {
    let mut one = ingress("web", &[], &[("/a", "Prefix")]);
    one["spec"]["defaultBackend"] = json!({"service": {"name": "rest", "port": {"name": "http"}}});
    let both = made(&[one.clone()]);
    assert_eq!(told(part(&both, "web")), ["http-a.test: PathPrefix /a -> web", "http-a.test: PathPrefix / -> rest"]);
    assert_eq!(part(&both, "web").port_names, ["http"]);
    one["spec"]["rules"] = json!([]);
    assert_eq!(told(part(&made(&[one]), "web")), ["http: PathPrefix / -> rest"]);
}

#[test]
fn classes_say_whose_an_ingress_is() {
    let class = |name: &str, controller: &str, default: bool| -> Arc<IngressClass> {
        let annotations = json!({IS_DEFAULT: default.to_string()});
        let class = json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": controller}});
        Arc::new(serde_json::from_value(class).unwrap())
    };
    let of = |class: Option<&str>, annotated: Option<&str>| -> Ingress {
        let annotations = annotated.map(|name| json!({CLASS_ANNOTATION: name}));
        serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": {"ingressClassName": class}}))
            .unwrap()
    };
    let classes = [class("own", GATEWAY_CONTROLLER, false), class("nginx", "k8s.io/ingress-nginx", false)];
    let served = ["atoll".to_owned()];
    for (ingress, expected) in [
        (of(Some("atoll"), None), true),
        (of(Some("own"), None), true),
        (of(None, Some("atoll")), true),
        (of(Some("nginx"), None), false),
        (of(None, None), false),
    ] {
        assert_eq!(is_served(&ingress, &classes, &served), expected, "{ingress:?}");
    }
    assert!(is_served(&of(Some("nginx"), None), &classes, &["nginx".to_owned()]), "other classes when told");
    assert!(is_served(&of(None, None), &[class("own", GATEWAY_CONTROLLER, true)], &served), "the default class");
}

#[test]
fn every_annotation_has_one_row_and_a_way() {
    let mut names: Vec<&str> = ANNOTATIONS.iter().map(|row| row.name).collect();
    names.sort_unstable();
    let len = names.len();
    names.dedup();
    assert_eq!(names.len(), len);
    assert!(ANNOTATIONS.iter().all(|row| !row.way.is_empty()));
    assert!(ANNOTATIONS.iter().filter(|row| row.does == Does::Honoured).count() > 40);
}

proptest::proptest! {
    /// Annotations are people's own: whatever they hold, something becomes of them.
    #[test]
    fn whatever_annotations_hold_nothing_panics(row in 0..ANNOTATIONS.len(), value in ".{0,40}", path in ".{0,20}") {
        let name = ANNOTATIONS[row].name;
        let made = made(&[ingress("web", &[(name, &value)], &[(&path, "Prefix")])]);
        let part = part(&made, "web");
        // What is refused and protects closes whatever has filters.
        let closes = part.findings.iter().any(|finding| finding.closes);
        let open = part.routes.iter().flat_map(|r| &r.spec.rules).filter_map(|r| r.name.as_ref()).any(|name| !part.closed.contains(name));
        proptest::prop_assert!(!(closes && open), "{name} {value} {path}");
    }
}

#[test]
fn a_translation_is_printed_as_objects_that_can_be_applied() {
    let mut one = ingress(
        "web",
        &[("whitelist-source-range", "10.0.0.0/8"), ("rewrite-target", "/$1"), ("auth-snippet", "x")],
        &[("/(.*)", "Prefix")],
    );
    one["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = json!({"name": "http"});
    one["spec"]["tls"] = json!([{"hosts": ["a.test"], "secretName": "a"}]);
    let options = options();
    let port =
        |namespace: &str, name: &str, port: &str| ((namespace, name, port) == ("shop", "web", "http")).then_some(81);
    let export = export(&made(&[one]), &options, &port);
    let told: Vec<String> = export
        .objects
        .iter()
        .map(|o| {
            format!(
                "{} {}/{}",
                o["kind"].as_str().unwrap(),
                o["metadata"]["namespace"].as_str().unwrap(),
                o["metadata"]["name"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "Gateway system/entry",
            "ReferenceGrant shop/entry",
            "HTTPRoute shop/web",
            "HTTPRoute shop/web-2",
            "RoutePolicy shop/web",
            "RoutePolicy shop/web-2"
        ]
    );
    let rule = &export.objects[3]["spec"]["rules"][0];
    assert_eq!((&rule["name"], &rule["backendRefs"][0]["port"]), (&json!("path-0"), &json!(81)));
    let policy = &export.objects[4]["spec"];
    assert_eq!(
        policy["targetRefs"],
        json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web-2"}])
    );
    assert_eq!(policy["filters"][0]["filter"], "allow");
    let some = &export.objects[5]["spec"];
    assert_eq!(some["targetRefs"][0]["sectionName"], "path-0");
    let filters: Vec<&str> =
        some["filters"].as_array().unwrap().iter().map(|f| f["filter"].as_str().unwrap()).collect();
    assert_eq!(filters, ["path", "deny"], "what the Ingress closes stays closed");
    assert_eq!(export.notes[0].1.what, "auth-snippet");
}
