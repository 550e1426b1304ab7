//! What one Ingress wishes for, read out of its annotations. Pure.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};

use super::key::{self, KeyPart};
use super::paths::Path;
use super::read::{Finding, Reader};
use super::steps::{custom_errors, inside, steps};
use super::tls::{BackendTls, Clients};
use crate::kinds::gateway::{
    BackendObjectReference, CookieConfig, HTTPHeader, HTTPHeaderFilter, HTTPPathModifier, HTTPRequestMirror,
    HTTPRequestRedirect, HTTPRouteFilter, HTTPRouteRetry, HTTPRouteTimeouts, HTTPUrlRewrite, SessionPersistence,
};
use crate::kinds::route_policy::FilterStep;

/// A part of requests that goes elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Canary {
    pub(super) header: Option<String>,
    pub(super) value: Option<String>,
    pub(super) pattern: Option<String>,
    pub(super) cookie: Option<String>,
    pub(super) weight: i32,
    pub(super) total: i32,
}

/// A backend as an Ingress names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) service: String,
    pub(super) port: Port,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Port {
    Number(i32),
    Name(String),
}

/// A path of a host, with its backend.
#[derive(Debug, Clone)]
pub(super) struct Wished {
    /// Empty: any.
    pub(super) host: String,
    pub(super) path: Path,
    pub(super) backend: Backend,
}

/// What one Ingress wishes for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) object: Arc<Ingress>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) paths: Vec<Wished>,
    pub(super) aliases: Vec<String>,
    pub(super) canary: Option<Canary>,
    /// Makes the paths of its hosts regular expressions.
    pub(super) regex: bool,
    pub(super) rewrite: Option<String>,
    pub(super) app_root: Option<String>,
    /// Where all of its paths are sent instead.
    pub(super) moved: Option<HTTPRequestRedirect>,
    /// To HTTPS, where there is a certificate; or always.
    pub(super) to_https: bool,
    pub(super) always_to_https: bool,
    pub(super) www: bool,
    pub(super) steps: Vec<FilterStep>,
    pub(super) filters: Vec<HTTPRouteFilter>,
    pub(super) timeouts: Option<HTTPRouteTimeouts>,
    pub(super) retry: Option<HTTPRouteRetry>,
    pub(super) session: Option<SessionPersistence>,
    pub(super) grpc: bool,
    pub(super) backend_tls: bool,
    /// Whom it trusts then; nothing: a BackendTLSPolicy says.
    pub(super) trusts: Option<BackendTls>,
    /// Its hosts ask clients for certificates.
    pub(super) clients: Option<Clients>,
    /// Its hosts' TLS is passed on as it comes.
    pub(super) passes: bool,
    /// By what endpoints are chosen.
    pub(super) key: Option<Vec<KeyPart>>,
    /// The Service that answers where the backend has no endpoint.
    pub(super) stand_in: Option<String>,
    pub(super) findings: Vec<Finding>,
}

impl Wish {
    pub(super) fn read(object: &Arc<Ingress>) -> Self {
        let mut reader = Reader::of(object);
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let protocol = reader.text("backend-protocol").unwrap_or_default().to_ascii_uppercase();
        if !matches!(protocol.as_str(), "" | "HTTP" | "AUTO_HTTP" | "HTTPS" | "GRPC" | "GRPCS") {
            reader.refuse("backend-protocol", format!("`{protocol}` is not HTTP, HTTPS, GRPC or GRPCS"));
        }
        let rewrite = reader.text("rewrite-target");
        let backend_tls = protocol.ends_with('S');
        let trusts = BackendTls::read(&mut reader, &namespace);
        if trusts.is_some() && !backend_tls {
            // It says how TLS is spoken, if it is.
            reader.note("proxy-ssl-secret", "backend-protocol is neither HTTPS nor GRPCS, so no TLS is spoken");
        }
        let stand_in = reader.text("default-backend");
        let mut all = steps(&mut reader, &namespace);
        all.extend(custom_errors(&mut reader, object, &namespace, stand_in.as_deref()));
        let mut wish = Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            paths: paths(object, &mut reader),
            aliases: aliases(&mut reader),
            canary: canary(&mut reader),
            regex: reader.flag("use-regex").unwrap_or(false),
            app_root: reader.text("app-root"),
            moved: moved(&mut reader),
            to_https: reader.flag("ssl-redirect").unwrap_or(true),
            always_to_https: reader.flag("force-ssl-redirect").unwrap_or(false),
            www: reader.flag("from-to-www-redirect").unwrap_or(false),
            steps: all,
            filters: filters(&mut reader, &namespace),
            timeouts: reader
                .seconds("proxy-read-timeout")
                .map(|seconds| HTTPRouteTimeouts { request: None, backend_request: Some(format!("{seconds}s")) }),
            retry: retry(&mut reader),
            session: session(&mut reader),
            grpc: protocol.starts_with("GRPC"),
            backend_tls,
            trusts: trusts.filter(|_| backend_tls),
            clients: Clients::read(&mut reader, &namespace),
            passes: reader.flag("ssl-passthrough").unwrap_or(false),
            key: hash_key(&mut reader),
            stand_in,
            findings: Vec::new(),
            rewrite,
            namespace,
            object: Arc::clone(object),
        };
        // What has no capture and is the path itself changes nothing.
        let target = wish.rewrite.clone().unwrap_or_default();
        wish.regex |= wish.paths.iter().any(|wished| !target.is_empty() && target != wished.path.value);
        wish.findings = reader.findings;
        wish
    }

    /// Why its paths are closed.
    pub(super) fn closed(&self) -> bool {
        self.findings.iter().any(|finding| finding.closes)
    }
}

/// The paths, and what takes all others.
fn paths(object: &Ingress, reader: &mut Reader) -> Vec<Wished> {
    let spec = object.spec.clone().unwrap_or_default();
    let mut paths = Vec::new();
    let mut hosts = Vec::new();
    for rule in spec.rules.iter().flatten() {
        let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            let Some(backend) = backend(&path.backend, reader) else { continue };
            paths.push(Wished { host: host.clone(), path: Path::of(path.path.as_ref(), &path.path_type), backend });
        }
        hosts.push(host);
    }
    let Some(backend) = spec.default_backend.as_ref().and_then(|written| backend(written, reader)) else {
        return paths;
    };
    if hosts.is_empty() {
        hosts.push(String::new());
    }
    for host in hosts {
        if !paths.iter().any(|wished| wished.host == host && wished.path.value == "/") {
            paths.push(Wished { host, path: Path::of(None, "Prefix"), backend: backend.clone() });
        }
    }
    paths
}

fn backend(written: &IngressBackend, reader: &mut Reader) -> Option<Backend> {
    let Some(service) = &written.service else {
        let kind = written.resource.as_ref().map_or("nothing", |r| r.kind.as_str());
        reader.findings.push(Finding {
            what: "backend.resource".to_owned(),
            why: format!("a backend is a Service, not {kind}"),
            way: "HTTPRoute backendRefs",
            closes: false,
        });
        return None;
    };
    let port = service.port.clone().unwrap_or_default();
    let port = port.number.map(Port::Number).unwrap_or_else(|| Port::Name(port.name.unwrap_or_default()));
    Some(Backend { service: service.name.clone(), port })
}

fn canary(reader: &mut Reader) -> Option<Canary> {
    if reader.flag("canary") != Some(true) {
        return None;
    }
    let total = reader.number::<i32>("canary-weight-total").filter(|total| *total > 0).unwrap_or(100);
    let weight = reader.number::<i32>("canary-weight").unwrap_or(0).clamp(0, total);
    let pattern = reader.text("canary-by-header-pattern");
    if let Some(Err(error)) = pattern.as_deref().map(regex::Regex::new) {
        let why = error.to_string().lines().last().unwrap_or_default().to_owned();
        reader.refuse("canary-by-header-pattern", why);
    }
    Some(Canary {
        header: reader.text("canary-by-header"),
        value: reader.text("canary-by-header-value"),
        pattern: pattern.filter(|p| regex::Regex::new(p).is_ok()),
        cookie: reader.text("canary-by-cookie"),
        weight,
        total,
    })
}

fn aliases(reader: &mut Reader) -> Vec<String> {
    let written = reader.list("server-alias").into_iter().map(|host| host.to_ascii_lowercase());
    let (hosts, odd): (Vec<String>, Vec<String>) = written.partition(|host| is_host(host));
    for odd in odd {
        reader.refuse("server-alias", format!("`{odd}` is no host name"));
    }
    hosts
}

/// Whether it is a host name, or a wildcard, as listeners have them (RFC 1123 §2.1).
fn is_host(written: &str) -> bool {
    let is_label = |label: &str| {
        let letters = label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
        letters && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let name = written.strip_prefix("*.").unwrap_or(written);
    name.len() <= 253 && name.split('.').all(is_label)
}

/// permanent-redirect goes before temporal-redirect.
fn moved(reader: &mut Reader) -> Option<HTTPRequestRedirect> {
    let all =
        [("permanent-redirect", "permanent-redirect-code", 301), ("temporal-redirect", "temporal-redirect-code", 302)];
    all.into_iter().find_map(|(name, code, usual)| {
        let url = reader.text(name)?;
        let status = reader.number::<u16>(code).unwrap_or(usual);
        let moved = redirect(&url).filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308));
        if moved.is_none() {
            let why = "a URL of http, https or $scheme, or a path, with a status of 301, 302, 303, 307 or 308; of variables $host or \
                       $http_host as the host and $request_uri at the end";
            reader.refuse(name, format!("`{url}` with status {status} can't be followed here, which takes {why}"));
        }
        Some(HTTPRequestRedirect { status_code: Some(status), ..moved? })
    })
}

/// A redirect to a URL; `$request_uri` at its end keeps path and query.
fn redirect(url: &str) -> Option<HTTPRequestRedirect> {
    let (scheme, rest) = match url.split_once("://") {
        Some(("$scheme", rest)) => (None, rest),
        Some((scheme @ ("http" | "https"), rest)) => (Some(scheme.to_owned()), rest),
        Some(_) => return None,
        None if url.starts_with('/') => {
            return Some(to_path(HTTPRequestRedirect::default(), url)).filter(|_| !url.contains('$'));
        }
        None => return None,
    };
    let kept = rest.strip_suffix("$request_uri");
    let rest = kept.unwrap_or(rest);
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (authority, None),
    };
    let host = (!matches!(host, "$host" | "$http_host")).then(|| host.to_owned());
    if host.as_ref().is_some_and(|host| host.is_empty() || host.contains('$')) || path.contains('$') {
        return None;
    }
    let to = HTTPRequestRedirect { scheme, hostname: host, port, ..HTTPRequestRedirect::default() };
    match (kept, path) {
        (Some(_), "" | "/") => Some(to),
        (Some(_), _) => None,
        (None, path) => Some(to_path(to, path)),
    }
}

/// A path with a question mark is the whole target: nothing of the request's query stays.
fn to_path(to: HTTPRequestRedirect, path: &str) -> HTTPRequestRedirect {
    let whole = if path.contains('?') { path.to_owned() } else { format!("{path}?") };
    HTTPRequestRedirect { path: Some(full(whole)), ..to }
}

pub(super) fn full(path: String) -> HTTPPathModifier {
    HTTPPathModifier {
        modifier_type: "ReplaceFullPath".to_owned(),
        replace_full_path: Some(path),
        replace_prefix_match: None,
    }
}

fn filters(reader: &mut Reader, namespace: &str) -> Vec<HTTPRouteFilter> {
    let mut filters = Vec::new();
    if let Some(target) = reader.text("mirror-target") {
        // What is mirrored goes to the same path.
        let to = target.strip_suffix("$request_uri").unwrap_or(&target);
        match inside(to, namespace).filter(|(_, _, path)| path == "/") {
            Some((name, port, _)) => filters.push(mirror(name, port)),
            None => reader
                .refuse("mirror-target", format!("`{target}` is no Service of the namespace with the request's path")),
        }
    }
    let prefix = reader.text("x-forwarded-prefix");
    if let Some(odd) = prefix.as_ref().filter(|prefix| !is_value(prefix)) {
        reader.refuse("x-forwarded-prefix", format!("`{odd}` is no value of a header"));
    }
    if let Some(value) = prefix.filter(|prefix| is_value(prefix)) {
        let set = vec![HTTPHeader { name: "X-Forwarded-Prefix".to_owned(), value }];
        filters.push(HTTPRouteFilter {
            filter_type: "RequestHeaderModifier".to_owned(),
            request_header_modifier: Some(HTTPHeaderFilter { set, ..HTTPHeaderFilter::default() }),
            ..HTTPRouteFilter::default()
        });
    }
    let host = reader.text("upstream-vhost");
    let is_name = |host: &str| host.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._:[]".contains(&octet));
    if let Some(odd) = host.as_ref().filter(|host| !is_name(host)) {
        reader.refuse("upstream-vhost", format!("`{odd}` is no host name"));
    }
    if let Some(host) = host.filter(|host| is_name(host)) {
        filters.push(HTTPRouteFilter {
            filter_type: "URLRewrite".to_owned(),
            url_rewrite: Some(HTTPUrlRewrite { hostname: Some(host), path: None }),
            ..HTTPRouteFilter::default()
        });
    }
    filters
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic())
}

fn mirror(name: String, port: u16) -> HTTPRouteFilter {
    let backend_ref = BackendObjectReference { name, port: Some(port.into()), ..BackendObjectReference::default() };
    HTTPRouteFilter {
        filter_type: "RequestMirror".to_owned(),
        request_mirror: Some(HTTPRequestMirror { backend_ref, ..HTTPRequestMirror::default() }),
        ..HTTPRouteFilter::default()
    }
}

fn hash_key(reader: &mut Reader) -> Option<Vec<KeyPart>> {
    match key::parse(&reader.text("upstream-hash-by")?) {
        Ok(parts) => Some(parts),
        Err(why) => {
            reader.refuse("upstream-hash-by", why);
            None
        }
    }
}

/// Statuses that are tried again; broken connections always are.
fn retry(reader: &mut Reader) -> Option<HTTPRouteRetry> {
    let tries = reader.number::<i32>("proxy-next-upstream-tries");
    let written = reader.text("proxy-next-upstream")?;
    let mut codes = Vec::new();
    for word in written.split([' ', ',']).filter(|word| !word.is_empty()) {
        match word.strip_prefix("http_").map(str::parse) {
            Some(Ok(code)) => codes.push(code),
            None if matches!(word, "error" | "timeout" | "off") => {}
            _ => reader.refuse("proxy-next-upstream", format!("`{word}` is not tried again")),
        }
    }
    // Of none there is no bound in nginx but the number of endpoints.
    let attempts = tries.filter(|n| *n > 0).map_or(3, |n| (n - 1).max(0));
    (!codes.is_empty()).then_some(HTTPRouteRetry { codes, attempts: Some(attempts), backoff: None })
}

fn session(reader: &mut Reader) -> Option<SessionPersistence> {
    let kind = reader.text("affinity")?;
    if kind != "cookie" {
        reader.refuse("affinity", format!("`{kind}` is not cookie"));
        return None;
    }
    let name = reader.text("session-cookie-name").unwrap_or_else(|| "INGRESSCOOKIE".to_owned());
    if !name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)) {
        reader.refuse("session-cookie-name", format!("`{name}` is no name of a cookie"));
        return None;
    }
    let life = reader
        .seconds("session-cookie-max-age")
        .or_else(|| reader.seconds("session-cookie-expires"))
        .filter(|n| *n > 0);
    Some(SessionPersistence {
        session_name: Some(name),
        absolute_timeout: life.map(|seconds| format!("{seconds}s")),
        persistence_type: Some("Cookie".to_owned()),
        cookie_config: life.map(|_| CookieConfig { lifetime_type: Some("Permanent".to_owned()) }),
    })
}
