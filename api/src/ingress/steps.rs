//! Annotations that filters of RoutePolicies carry out. Pure.
//!
//! In: annotations. Out: filters for all paths of the Ingress. Where nginx and the filters differ: a limit answers 429, not 503.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Map, Value, json};

use super::read::Reader;
use crate::kinds::route_policy::FilterStep;
use crate::kinds::route_policy::filters::SigninReturn;

/// The kind of a backend that is the Service of that name, else the ServiceImport; its port 0 is the first.
pub const SERVICE: &str = "ingress:Service";

/// What may be sent with credentials where an Ingress does not say.
const CORS_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const CORS_HEADERS: &str =
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
const CORS_MAX_AGE: i32 = 1_728_000;
/// So many times its rate may come at once.
const BURST: u32 = 5;

/// A filter with its parameters.
pub(super) fn step(filter: &str, parameters: Value) -> FilterStep {
    let parameters = match parameters {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    FilterStep { filter: filter.to_owned(), parameters }
}

/// The filters of an Ingress of that namespace.
pub(super) fn steps(reader: &mut Reader, namespace: &str) -> Vec<FilterStep> {
    let mut steps = Vec::new();
    lists(reader, &mut steps);
    limits(reader, &mut steps);
    cors(reader, &mut steps);
    basic(reader, namespace, &mut steps);
    steps.extend(forward(reader, namespace));
    steps
}

/// Errors of these statuses are told by another Service, which is asked as nginx asks it.
pub(super) fn custom_errors(
    reader: &mut Reader,
    object: &Ingress,
    namespace: &str,
    stand_in: Option<&str>,
) -> Option<FilterStep> {
    let statuses = reader.list("custom-http-errors");
    if let Some(odd) = statuses.iter().find(|s| !s.parse::<u16>().is_ok_and(|s| (400..=599).contains(&s))) {
        reader.refuse("custom-http-errors", format!("`{odd}` is no status of an error"));
        return None;
    }
    if statuses.is_empty() {
        return None;
    }
    let Some(service) = stand_in else {
        reader.refuse("custom-http-errors", "default-backend, which would tell them, is absent");
        return None;
    };
    let name = object.metadata.name.clone().unwrap_or_default();
    let told = [("X-Namespace", namespace), ("X-Ingress-Name", &name)];
    let told: Vec<Value> = told.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let page = json!({"statuses": statuses, "backendRef": {"kind": SERVICE, "name": service, "port": 0}, "backendHeaders": told});
    Some(step("errorPages", json!({"pages": [page]})))
}

fn lists(reader: &mut Reader, steps: &mut Vec<FilterStep>) {
    let denied = ranges(reader, "denylist-source-range");
    if !denied.is_empty() {
        steps.push(step("deny", json!({"cidrs": denied})));
    }
    let mut allowed = ranges(reader, "whitelist-source-range");
    allowed.extend(ranges(reader, "allowlist-source-range"));
    if !allowed.is_empty() {
        steps.push(step("allow", json!({"cidrs": allowed})));
    }
}

/// The addresses and ranges of a list.
fn ranges(reader: &mut Reader, name: &str) -> Vec<String> {
    let written = reader.list(name);
    let is_none = |one: &&String| one.parse::<IpNet>().is_err() && one.parse::<IpAddr>().is_err();
    if let Some(odd) = written.iter().find(is_none) {
        reader.refuse(name, format!("`{odd}` is neither an address nor a range"));
        return Vec::new();
    }
    if written.is_empty() && reader.text(name).is_some() {
        reader.refuse(name, "it names nobody");
    }
    written
}

fn limits(reader: &mut Reader, steps: &mut Vec<FilterStep>) {
    if let Some(max) = reader.number::<u32>("limit-connections").filter(|max| *max > 0) {
        steps.push(step("connections", json!({"max": max, "key": "clientIP"})));
    }
    if let Some(max) = reader.size("proxy-body-size").filter(|max| *max > 0) {
        steps.push(step("sizes", json!({"requestBytesMax": max})));
    }
    let (rate, after) = (reader.number::<u64>("limit-rate"), reader.number::<u64>("limit-rate-after"));
    if let Some(rate) = rate.filter(|rate| *rate > 0) {
        let mut bandwidth = json!({"bytesPerSecond": rate.saturating_mul(1024)});
        if let Some(after) = after.filter(|after| *after > 0) {
            bandwidth["burstBytes"] = json!(after.saturating_mul(1024));
        }
        steps.push(step("bandwidth", bandwidth));
    }
    let times = reader.number::<u32>("limit-burst-multiplier").filter(|n| *n > 0).unwrap_or(BURST);
    for (name, per) in [("limit-rps", "1s"), ("limit-rpm", "1m")] {
        if let Some(requests) = reader.number::<u32>(name).filter(|n| *n > 0) {
            // nginx lets through the burst beside the one that is due.
            let burst = requests.saturating_mul(times).saturating_add(1);
            steps.push(step("rate", json!({"requests": requests, "per": per, "burst": burst, "key": "clientIP"})));
        }
    }
}

fn cors(reader: &mut Reader, steps: &mut Vec<FilterStep>) {
    let words = |text: &str| text.split(',').map(|word| word.trim().to_owned()).collect::<Vec<_>>();
    let or = |list: Vec<String>, default: &str| if list.is_empty() { words(default) } else { list };
    if reader.flag("enable-cors") != Some(true) {
        return;
    }
    let origins = or(reader.list("cors-allow-origin"), "*");
    let anybody = origins.iter().any(|origin| origin == "*");
    // nginx answers `*` with credentials, which browsers refuse (Fetch §3.2.5): nobody's credentials were let in, and none are.
    let credentials = reader.flag("cors-allow-credentials");
    if anybody && credentials == Some(true) {
        reader.refuse("cors-allow-credentials", "browsers send none where every origin may: list the origins");
    }
    let mut cors = json!({
        "allowOrigins": origins,
        "allowMethods": or(reader.list("cors-allow-methods"), CORS_METHODS),
        "allowHeaders": or(reader.list("cors-allow-headers"), CORS_HEADERS),
        "allowCredentials": !anybody && credentials.unwrap_or(true),
        "maxAge": reader.number::<i32>("cors-max-age").unwrap_or(CORS_MAX_AGE),
    });
    let exposed = reader.list("cors-expose-headers");
    if !exposed.is_empty() {
        cors["exposeHeaders"] = json!(exposed);
    }
    steps.push(step("cors", cors));
}

fn basic(reader: &mut Reader, namespace: &str, steps: &mut Vec<FilterStep>) {
    let Some(kind) = reader.text("auth-type") else {
        if reader.text("auth-secret").is_some() {
            reader.note("auth-secret", "auth-type is absent, so nobody is asked for a password");
        }
        return;
    };
    if kind != "basic" {
        return reader.refuse("auth-type", format!("`{kind}` is not basic"));
    }
    if let Some(odd) = reader.text("auth-secret-type").filter(|form| form != "auth-file") {
        return reader.refuse("auth-secret-type", format!("`{odd}` is not auth-file"));
    }
    let Some(secret) = reader.text("auth-secret") else { return reader.refuse("auth-secret", "auth-type needs it") };
    let name = match secret.split_once('/') {
        Some((at, name)) if at == namespace => name,
        Some(_) => return reader.refuse("auth-secret", format!("Secret `{secret}` is of another namespace")),
        None => &secret,
    };
    let mut basic = json!({"secretRef": {"name": name}});
    if let Some(realm) = reader.text("auth-realm") {
        basic["realm"] = json!(realm);
    }
    steps.push(step("basic", basic));
}

fn forward(reader: &mut Reader, namespace: &str) -> Option<FilterStep> {
    let signin = reader.text("auth-signin");
    let Some(url) = reader.text("auth-url") else {
        if signin.is_some() {
            reader.refuse("auth-signin", "auth-url is absent");
        }
        return None;
    };
    // Its own host is put in where that is known.
    let rest = url.strip_prefix("https://$host/").or_else(|| url.strip_prefix("http://$host/"));
    if rest.unwrap_or(&url).contains('$') {
        reader.refuse("auth-url", format!("`{url}` holds a variable of nginx other than $host as its host"));
        return None;
    }
    let mut auth = match inside(&url, namespace) {
        Some((service, port, path)) => json!({"backendRef": {"name": service, "port": port}, "authPath": path}),
        None => json!({"url": url}),
    };
    let back = reader.list("auth-response-headers");
    if !back.is_empty() {
        auth["allowedResponseHeaders"] = json!(back);
    }
    if let Some(signin) = signin {
        let Some((signin, back)) = place_of_signin(&signin) else {
            reader.refuse(
                "auth-signin",
                format!("`{signin}` holds a variable of nginx other than the place to come back to"),
            );
            return None;
        };
        auth["signinUrl"] = json!(signin);
        if let Some(back) = back {
            auth["signinReturn"] = json!(back);
        }
    }
    Some(step("forwardAuth", auth))
}

/// Where to sign in, without the parameter `rd` that says where to come back to, and how that says it.
fn place_of_signin(written: &str) -> Option<(String, Option<SigninReturn>)> {
    let back = [
        ("rd=$scheme://$host$escaped_request_uri", None),
        ("rd=$scheme://$host$request_uri", None),
        ("rd=$scheme://$http_host$escaped_request_uri", None),
        ("rd=$escaped_request_uri", Some(SigninReturn::Path)),
        ("rd=$request_uri", Some(SigninReturn::Path)),
    ];
    let known = back.iter().find_map(|(end, how)| Some((written.strip_suffix(end)?, *how)));
    let (place, how) = known.map_or((written, None), |(place, how)| (place.trim_end_matches(['?', '&']), how));
    let place = place.strip_prefix("https://$host").or_else(|| place.strip_prefix("$scheme://$host")).unwrap_or(place);
    (!place.contains('$')).then(|| (place.to_owned(), how))
}

/// A step for one host: what asks `$host` asks that. Nothing where it asks another, whatever the host.
pub(super) fn for_host(step: &FilterStep, host: &str) -> Option<FilterStep> {
    let url = step.parameters.get("url")?.as_str()?;
    let (scheme, rest) = url.split_once("://$host/")?;
    let mut step = step.clone();
    step.parameters.insert("url".to_owned(), json!(format!("{scheme}://{host}/{rest}")));
    Some(step)
}

/// The Service of that namespace, its port, and the path that a URL means.
pub(super) fn inside(url: &str, namespace: &str) -> Option<(String, u16, String)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (host, port) = authority.split_once(':').map_or(Some((authority, 80)), |(h, p)| Some((h, p.parse().ok()?)))?;
    let name = host.trim_end_matches('.');
    let name = name.strip_suffix(".svc.cluster.local").or_else(|| name.strip_suffix(".svc"))?;
    let service = name.strip_suffix(&format!(".{namespace}"))?;
    (!service.contains('.')).then(|| (service.to_owned(), port, path.to_owned()))
}
