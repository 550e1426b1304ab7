//! The annotations of ingress-nginx, one row each: whether it is honoured, whether it protects, and how the Gateway API says the same.
//!
//! A row that protects and isn't honoured, as a whole or with the value that it has, closes the paths of its Ingress. What stands in no row
//! is refused, and protects where its name says so. Source: ingress-nginx, "Annotations".

/// What is done about an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// It is carried out.
    Honoured,
    /// It says what is so anyway, or turns a knob that is not there.
    Implied,
    /// It is refused.
    Refused,
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The name after the prefix.
    pub name: &'static str,
    /// What is done about it.
    pub does: Does,
    /// Whether somebody gets in who should not where it is not carried out.
    pub protects: bool,
    /// What says the same for routes.
    pub way: &'static str,
}

const fn honoured(name: &'static str, way: &'static str) -> Row {
    Row { name, does: Does::Honoured, protects: false, way }
}

const fn guards(name: &'static str, way: &'static str) -> Row {
    Row { name, does: Does::Honoured, protects: true, way }
}

const fn implied(name: &'static str, way: &'static str) -> Row {
    Row { name, does: Does::Implied, protects: false, way }
}

const fn refused(name: &'static str, way: &'static str) -> Row {
    Row { name, does: Does::Refused, protects: false, way }
}

const fn closed(name: &'static str, way: &'static str) -> Row {
    Row { name, does: Does::Refused, protects: true, way }
}

const REDIRECT: &str = "HTTPRoute filter RequestRedirect";
const WEIGHTS: &str = "HTTPRoute backendRefs with weights, matches of headers";
const AUTH: &str = "RoutePolicy filter forwardAuth";
const BASIC: &str = "RoutePolicy filter basic";
const CORS: &str = "RoutePolicy filter cors";
const SESSION: &str = "HTTPRoute sessionPersistence";
const CLIENTS: &str = "Gateway tls.frontend.validation, or tls.options atoll.dev/client-ca of a listener with RoutePolicy filter clientCertificate";
const BACKEND_TLS: &str = "BackendTLSPolicy";
const BALANCE: &str = "TrafficPolicy balance";
const STREAMED: &str = "nothing: bodies are streamed, each side at its own pace";
const HEADERS: &str = "RoutePolicy filter headers";
const WAF: &str = "RoutePolicy filter extAuthz with a firewall behind it";
const PAGES: &str = "RoutePolicy filter errorPages with backendRef";
const STAND_IN: &str = "RoutePolicy filter errorPages with backendRef for 503";

/// Every annotation that is known.
pub const ANNOTATIONS: &[Row] = &[
    honoured("rewrite-target", "RoutePolicy filter path"),
    honoured("use-regex", "HTTPRoute matches of path type RegularExpression"),
    honoured("app-root", REDIRECT),
    honoured("ssl-redirect", REDIRECT),
    honoured("force-ssl-redirect", REDIRECT),
    honoured("from-to-www-redirect", REDIRECT),
    honoured("permanent-redirect", REDIRECT),
    honoured("permanent-redirect-code", REDIRECT),
    honoured("temporal-redirect", REDIRECT),
    honoured("temporal-redirect-code", REDIRECT),
    honoured("canary", WEIGHTS),
    honoured("canary-weight", WEIGHTS),
    honoured("canary-weight-total", WEIGHTS),
    honoured("canary-by-header", WEIGHTS),
    honoured("canary-by-header-value", WEIGHTS),
    honoured("canary-by-header-pattern", WEIGHTS),
    honoured("canary-by-cookie", WEIGHTS),
    guards("auth-url", AUTH),
    guards("auth-signin", AUTH),
    guards("auth-response-headers", AUTH),
    guards("auth-type", BASIC),
    guards("auth-secret", BASIC),
    guards("auth-secret-type", BASIC),
    honoured("auth-realm", BASIC),
    closed("auth-method", AUTH),
    closed("auth-signin-redirect-param", AUTH),
    closed("auth-request-redirect", AUTH),
    closed("auth-proxy-set-headers", AUTH),
    closed("auth-snippet", AUTH),
    refused("auth-cache-key", AUTH),
    refused("auth-cache-duration", AUTH),
    refused("auth-always-set-cookie", AUTH),
    implied("auth-keepalive", AUTH),
    implied("auth-keepalive-requests", AUTH),
    implied("auth-keepalive-share-vars", AUTH),
    implied("auth-keepalive-timeout", AUTH),
    closed("enable-global-auth", "RoutePolicy filter forwardAuth on the Gateway"),
    guards("auth-tls-secret", CLIENTS),
    guards("auth-tls-verify-client", CLIENTS),
    guards("auth-tls-verify-depth", CLIENTS),
    guards("auth-tls-match-cn", CLIENTS),
    guards("auth-tls-pass-certificate-to-upstream", CLIENTS),
    guards("auth-tls-error-page", CLIENTS),
    guards("whitelist-source-range", "RoutePolicy filter allow"),
    guards("allowlist-source-range", "RoutePolicy filter allow"),
    guards("denylist-source-range", "RoutePolicy filter deny"),
    closed("satisfy", "RoutePolicies of several routes"),
    guards("limit-rps", "RoutePolicy filter rate"),
    guards("limit-rpm", "RoutePolicy filter rate"),
    guards("limit-burst-multiplier", "RoutePolicy filter rate"),
    guards("limit-connections", "RoutePolicy filter connections"),
    guards("limit-rate", "RoutePolicy filter bandwidth"),
    guards("limit-rate-after", "RoutePolicy filter bandwidth"),
    refused("limit-whitelist", "a route of its own for those clients"),
    refused("limit-allowlist", "a route of its own for those clients"),
    closed("global-rate-limit", "RoutePolicy filter rate, which counts over all gateways"),
    closed("global-rate-limit-window", "RoutePolicy filter rate"),
    closed("global-rate-limit-key", "RoutePolicy filter rate"),
    refused("global-rate-limit-ignored-cidrs", "a route of its own for those clients"),
    guards("proxy-body-size", "RoutePolicy filter sizes"),
    honoured("proxy-read-timeout", "HTTPRoute timeouts.backendRequest"),
    implied("proxy-connect-timeout", "nothing: a connect that takes more than a second has failed"),
    implied("proxy-send-timeout", "gateway.limits.bodyTimeout of the configuration"),
    implied("proxy-buffering", STREAMED),
    implied("proxy-request-buffering", STREAMED),
    implied("proxy-buffers-number", STREAMED),
    implied("proxy-buffer-size", STREAMED),
    implied("proxy-busy-buffers-size", STREAMED),
    implied("proxy-max-temp-file-size", STREAMED),
    implied("client-body-buffer-size", STREAMED),
    implied("proxy-http-version", STREAMED),
    implied("connection-proxy-header", STREAMED),
    honoured("proxy-next-upstream", "HTTPRoute retry"),
    honoured("proxy-next-upstream-tries", "HTTPRoute retry"),
    implied("proxy-next-upstream-timeout", "HTTPRoute timeouts.request"),
    refused("proxy-cookie-domain", HEADERS),
    refused("proxy-cookie-path", HEADERS),
    refused("proxy-redirect-from", HEADERS),
    refused("proxy-redirect-to", HEADERS),
    guards("proxy-ssl-secret", BACKEND_TLS),
    guards("proxy-ssl-verify", BACKEND_TLS),
    guards("proxy-ssl-verify-depth", BACKEND_TLS),
    guards("proxy-ssl-name", BACKEND_TLS),
    guards("proxy-ssl-server-name", BACKEND_TLS),
    closed("proxy-ssl-ciphers", BACKEND_TLS),
    guards("proxy-ssl-protocols", BACKEND_TLS),
    guards("backend-protocol", "appProtocol of the Service's port, GRPCRoute, BackendTLSPolicy"),
    closed("secure-backends", BACKEND_TLS),
    guards("ssl-passthrough", "TLSRoute on a listener with tls.mode Passthrough"),
    closed("ssl-ciphers", "Gateway listener tls.options"),
    implied("ssl-prefer-server-ciphers", "Gateway listener tls.options"),
    honoured("affinity", SESSION),
    implied("affinity-mode", SESSION),
    implied("affinity-canary-behavior", SESSION),
    honoured("session-cookie-name", SESSION),
    honoured("session-cookie-expires", SESSION),
    honoured("session-cookie-max-age", SESSION),
    refused("session-cookie-path", SESSION),
    refused("session-cookie-domain", SESSION),
    refused("session-cookie-samesite", SESSION),
    refused("session-cookie-secure", SESSION),
    implied("session-cookie-change-on-failure", SESSION),
    implied("session-cookie-conditional-samesite-none", SESSION),
    honoured("upstream-hash-by", BALANCE),
    refused("upstream-hash-by-subset", BALANCE),
    refused("upstream-hash-by-subset-size", BALANCE),
    refused("load-balance", BALANCE),
    honoured("upstream-vhost", "HTTPRoute filter URLRewrite with hostname"),
    implied("service-upstream", "nothing: endpoints are chosen one by one"),
    honoured("x-forwarded-prefix", "HTTPRoute filter RequestHeaderModifier"),
    implied("preserve-trailing-slash", "nothing: paths keep it"),
    honoured("server-alias", "HTTPRoute hostnames"),
    honoured("enable-cors", CORS),
    honoured("cors-allow-origin", CORS),
    honoured("cors-allow-methods", CORS),
    honoured("cors-allow-headers", CORS),
    honoured("cors-allow-credentials", CORS),
    honoured("cors-expose-headers", CORS),
    honoured("cors-max-age", CORS),
    refused("custom-headers", HEADERS),
    honoured("custom-http-errors", PAGES),
    refused("disable-proxy-intercept-errors", PAGES),
    honoured("default-backend", STAND_IN),
    honoured("mirror-target", "HTTPRoute filter RequestMirror"),
    refused("mirror-request-body", "HTTPRoute filter RequestMirror"),
    refused("mirror-host", "HTTPRoute filter RequestMirror"),
    refused("denylist-user-agents", "HTTPRoute matches of the header User-Agent"),
    implied("http2-push-preload", "nothing: browsers no longer take pushes"),
    implied("enable-access-log", "the log's level"),
    implied("enable-rewrite-log", "the log's level"),
    implied("enable-opentelemetry", "the configuration"),
    implied("opentelemetry-trust-incoming-span", "the configuration"),
    implied("enable-opentracing", "the configuration"),
    closed("enable-modsecurity", WAF),
    closed("enable-owasp-core-rules", WAF),
    closed("modsecurity-transaction-id", WAF),
    closed("modsecurity-snippet", WAF),
    refused("configuration-snippet", "HTTPRoute filters, RoutePolicy"),
    refused("server-snippet", "HTTPRoute filters, RoutePolicy"),
    refused("stream-snippet", "TCPRoute, TLSRoute"),
];

/// Words in names that are in no row which say that it protects.
const PROTECTS: &[&str] = &["auth", "list", "limit", "ssl", "tls", "secur", "deny", "allow", "block"];

/// Directives of snippets that keep somebody out.
const KEEPS_OUT: &[&str] = &[
    "deny",
    "allow",
    "auth_",
    "satisfy",
    "limit_",
    "return",
    "ssl_",
    "access_by",
    "rewrite_by",
    "modsecurity",
    "secure_link",
    "valid_referers",
];

/// The row of a name after the prefix.
pub fn row(name: &str) -> Option<&'static Row> {
    ANNOTATIONS.iter().find(|row| row.name == name)
}

/// Whether paths are closed where an annotation is not honoured.
pub fn protects(name: &str, value: &str) -> bool {
    if name.ends_with("-snippet") {
        return row(name).is_none_or(|row| row.protects) || KEEPS_OUT.iter().any(|word| value.contains(word));
    }
    row(name).map_or_else(|| PROTECTS.iter().any(|word| name.contains(word)), |row| row.protects)
}

/// How the Gateway API says the same.
pub fn way(name: &str) -> &'static str {
    row(name).map_or("HTTPRoute, RoutePolicy", |row| row.way)
}
