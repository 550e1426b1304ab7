//! What the filters of a RoutePolicy take: one struct a filter. Times are durations as the Gateway API writes them (`10s`, `1m30s`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::NameRef;
use crate::kinds::gateway::BackendObjectReference;

/// Derives what every struct of parameters is.
macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }
    )*};
}

/// Whom a limit counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LimitKey {
    /// Each address of a client: the one that lists, hashing and logs use too.
    #[default]
    #[serde(rename = "clientIP")]
    ClientIp,
    /// Each value of the header that `header` names; without it the client's address.
    #[serde(rename = "header")]
    Header,
    /// Each one who was authenticated by a filter before; without one the client's address.
    #[serde(rename = "user")]
    User,
    /// All together.
    #[serde(rename = "route")]
    Route,
}

/// Over which gateways a rate counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RateScope {
    /// All replicas together.
    #[default]
    Global,
    /// Each replica for itself.
    Replica,
}

/// What an authorisation server speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::upper_case_acronyms)]
pub enum AuthProtocol {
    /// `envoy.service.auth.v3.Authorization`.
    #[default]
    GRPC,
    /// A request of HTTP; 200 lets it pass.
    HTTP,
}

/// How people who sign in say where they wanted to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SigninReturn {
    /// The whole URL.
    #[default]
    Url,
    /// Path and query.
    Path,
}

/// Whether a processor is shown headers or trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HeaderMode {
    /// It is.
    Send,
    /// It is not.
    Skip,
}

/// How a processor is shown a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BodyMode {
    /// Not at all.
    #[default]
    None,
    /// Piece by piece, each of which goes on once it was answered.
    Streamed,
    /// Whole, before anything of it goes on.
    Buffered,
    /// As much of it as is kept, before anything of it goes on; the rest is not shown.
    BufferedPartial,
    /// All of it as it comes, trailers too; what goes on is what the processor sends, whenever it does.
    FullDuplexStreamed,
}

/// How bodies are written shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// RFC 7932.
    Br,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

parameters! {
    /// A backend of the policy's namespace: a Service, or a ServiceImport of group `multicluster.x-k8s.io`.
    BackendRef {
        /// API group; empty: core.
        #[serde(skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        /// Kind; absent: Service.
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
        /// Name.
        name: String,
        /// Port.
        #[schemars(range(min = 1, max = 65535))]
        port: i32,
    }

    /// A header to be written.
    HeaderValueOf {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    }

    /// Changes of headers: set, then add, then remove.
    HeaderChange {
        /// Replaces.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        set: Vec<HeaderValueOf>,
        /// Appends.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        add: Vec<HeaderValueOf>,
        /// Takes away.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        remove: Vec<String>,
    }

    /// A claim of a token that the backend is told in a header.
    ClaimHeader {
        /// The claim; dots lead into objects.
        claim: String,
        /// The header.
        header: String,
    }

    /// A page in the place of answers of some statuses.
    ErrorPage {
        /// Statuses: `404`, `5xx`, `500-503`.
        #[schemars(length(min = 1, max = 32))]
        statuses: Vec<String>,
        /// What is said instead.
        #[serde(skip_serializing_if = "String::is_empty")]
        #[schemars(length(max = 65536))]
        body: String,
        /// Or who is asked what to say: it gets X-Code, X-Format and X-Original-URI, and its answer is given with its own status.
        #[serde(skip_serializing_if = "Option::is_none")]
        backend_ref: Option<BackendRef>,
        /// What it is told beside that.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 16))]
        backend_headers: Vec<HeaderValueOf>,
        /// Its type. Default: `text/html; charset=utf-8`.
        #[serde(skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
        /// The status that is given instead.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 200, max = 599))]
        status: Option<u16>,
    }

    /// `hsts`: browsers are told to come by HTTPS only (RFC 6797). Said on TLS alone, as the RFC wants.
    Hsts {
        /// For so long.
        #[schemars(range(min = 0, max = 315_360_000))]
        max_age_seconds: u32,
        /// For hosts below this one, too.
        include_subdomains: bool,
        /// May stand in browsers' lists.
        preload: bool,
    }

    /// `errorPages`: pages of one's own for errors.
    ErrorPages {
        /// The first that has the status counts.
        #[schemars(length(min = 1, max = 16))]
        pages: Vec<ErrorPage>,
    }

    /// `clientCertificate`: who shows no certificate that the listener trusts is kept out; the backend is told whose it was
    /// (`ssl-client-verify`, `ssl-client-subject-dn`, `ssl-client-issuer-dn`).
    ClientCertificate {
        /// Without one nobody passes (400). Default: true.
        #[serde(skip_serializing_if = "Option::is_none")]
        required: Option<bool>,
        /// A regular expression that is found in its subject (`CN=anna,O=shop`, RFC 4514); else 403.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 1024))]
        subject_pattern: Option<String>,
        /// The backend gets the certificate, too, as PEM with escapes, in `ssl-client-cert`.
        #[serde(skip_serializing_if = "Option::is_none")]
        forward: Option<bool>,
        /// Where people are sent who show none (302).
        #[serde(skip_serializing_if = "Option::is_none")]
        error_page: Option<String>,
    }

    /// `allow` and `deny`: who may come, by address.
    Cidrs {
        /// Ranges, or single addresses.
        #[schemars(length(min = 1, max = 1024))]
        cidrs: Vec<String>,
    }

    /// `connections`: requests that are worked on at once, streams included.
    Connections {
        /// So many; one more is answered 429.
        #[schemars(range(min = 1))]
        max: u32,
        /// Whom it counts. Default: clientIP.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<LimitKey>,
        /// For key `header`.
        #[serde(skip_serializing_if = "Option::is_none")]
        header: Option<String>,
    }

    /// `sizes`: what is longer is refused (413, 431), or broken off.
    Sizes {
        /// Of a request's body.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_bytes_max: Option<u64>,
        /// Of an answer's body (502 where its length is known, else it is broken off).
        #[serde(skip_serializing_if = "Option::is_none")]
        response_bytes_max: Option<u64>,
        /// Of all headers of a request.
        #[serde(skip_serializing_if = "Option::is_none")]
        header_bytes_max: Option<u64>,
    }

    /// `bandwidth`: how fast bodies go, each way, a request.
    Bandwidth {
        /// So fast.
        #[schemars(range(min = 1))]
        bytes_per_second: u64,
        /// So much goes at once before that. Default: what goes in a tenth of a second.
        #[serde(skip_serializing_if = "Option::is_none")]
        burst_bytes: Option<u64>,
    }

    /// `compression`: answers' bodies are written shorter, where the client takes that (RFC 9110 §12.5.3).
    Compression {
        /// In which ways, the best first; of those that a client likes as much the first is taken. Default: br, zstd, gzip.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 3))]
        codings: Vec<Coding>,
        /// Bodies of which types: `text/html`, `text/*` or `*+json`. Default: texts, JSON, XML, scripts, WebAssembly, SVG and fonts that are not
        /// compressed themselves.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 64))]
        content_types: Vec<String>,
        /// What is known to be shorter stays as it is. Default: 1024.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes_min: Option<u64>,
    }

    /// `rate`: how many requests in a time.
    Rate {
        /// So many …
        #[schemars(range(min = 1))]
        requests: u32,
        /// … in this time. Default: `1s`.
        #[serde(skip_serializing_if = "Option::is_none")]
        per: Option<String>,
        /// So many may come at once. Default: `requests`.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        burst: Option<u32>,
        /// Whom it counts. Default: clientIP.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<LimitKey>,
        /// For key `header`.
        #[serde(skip_serializing_if = "Option::is_none")]
        header: Option<String>,
        /// Over which gateways. Default: Global.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<RateScope>,
    }

    /// `cors`: which other origins may read answers (Fetch standard).
    Cors {
        /// Exact, with `*.` before the host's suffix, or `*`.
        #[schemars(length(min = 1, max = 64))]
        allow_origins: Vec<String>,
        /// Whether cookies and the like may be sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        allow_credentials: Option<bool>,
        /// Methods, or `*`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        allow_methods: Vec<String>,
        /// Headers that may be sent, or `*`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        allow_headers: Vec<String>,
        /// Headers that may be read, or `*`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        expose_headers: Vec<String>,
        /// For how many seconds an answer to a preflight holds.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_age: Option<i32>,
    }

    /// `basic`: user and password (RFC 7617).
    Basic {
        /// A Secret of the same namespace: key `auth` as htpasswd writes it (bcrypt, apr1, SHA), or `username` and `password`.
        secret_ref: Option<NameRef>,
        /// What browsers show. Default: `atoll`.
        #[serde(skip_serializing_if = "Option::is_none")]
        realm: Option<String>,
        /// The backend is told who it was in this header.
        #[serde(skip_serializing_if = "Option::is_none")]
        user_header: Option<String>,
    }

    /// `apiKeys`: a key that clients send.
    ApiKeys {
        /// A Secret of the same namespace: each key is a client's name, each value its API key.
        secret_ref: Option<NameRef>,
        /// Headers in which it may come. Default: `x-api-key`, where no other place is named.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        from_headers: Vec<String>,
        /// Parameters of the query.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        from_queries: Vec<String>,
        /// Cookies.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        from_cookies: Vec<String>,
        /// The backend is told who it was in this header.
        #[serde(skip_serializing_if = "Option::is_none")]
        user_header: Option<String>,
        /// The backend sees the key, too.
        #[serde(skip_serializing_if = "Option::is_none")]
        forward: Option<bool>,
    }

    /// `jwt`: a signed token (RFC 7519) whose keys are published (RFC 7517).
    Jwt {
        /// Who issued it: the claim `iss`.
        issuer: String,
        /// For whom: one of these is in the claim `aud`. None: for anybody.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        audiences: Vec<String>,
        /// The keys themselves, a JWK set.
        #[serde(skip_serializing_if = "Option::is_none")]
        jwks: Option<String>,
        /// Where the keys are published.
        #[serde(skip_serializing_if = "Option::is_none")]
        jwks_uri: Option<String>,
        /// Headers in which it may come, after `Bearer ` where that is there. Default: `authorization`, where no other place is named.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        from_headers: Vec<String>,
        /// Parameters of the query.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        from_queries: Vec<String>,
        /// Cookies.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        from_cookies: Vec<String>,
        /// Claims that the backend is told.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        claim_headers: Vec<ClaimHeader>,
        /// How far clocks may be apart. Default: `60s`.
        #[serde(skip_serializing_if = "Option::is_none")]
        clock_skew: Option<String>,
        /// The backend sees the token, too.
        #[serde(skip_serializing_if = "Option::is_none")]
        forward: Option<bool>,
    }

    /// `oidc`: people log in at a provider of OpenID Connect; who came stands in an encrypted cookie.
    Oidc {
        /// Who issued it: the claim `iss`.
        issuer: String,
        /// Who we are there.
        client_id: String,
        /// A Secret of the same namespace: `client-secret`, and `cookie-key`, 32 octets or more that cookies are encrypted with.
        secret_ref: Option<NameRef>,
        /// What is asked for. Default: `openid`, which always is.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        scopes: Vec<String>,
        /// Where people come back from the provider. Default: `/oauth2/callback`.
        #[serde(skip_serializing_if = "Option::is_none")]
        redirect_path: Option<String>,
        /// Where they log out. Default: `/oauth2/logout`.
        #[serde(skip_serializing_if = "Option::is_none")]
        logout_path: Option<String>,
        /// Default: `atoll-session`; over TLS `__Host-` stands before it.
        #[serde(skip_serializing_if = "Option::is_none")]
        cookie_name: Option<String>,
        /// After this somebody logs in again. Default: `12h`.
        #[serde(skip_serializing_if = "Option::is_none")]
        session_max: Option<String>,
        /// Claims that the backend is told.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        claim_headers: Vec<ClaimHeader>,
        /// How far clocks may be apart. Default: `60s`.
        #[serde(skip_serializing_if = "Option::is_none")]
        clock_skew: Option<String>,
    }

    /// `forwardAuth`: another server is asked whether a request may pass: 2xx says yes, everything else is given to the client.
    ForwardAuth {
        /// Whom.
        #[serde(skip_serializing_if = "Option::is_none")]
        backend_ref: Option<BackendRef>,
        /// Or where.
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// The path that is asked for. Default: `/`.
        #[serde(skip_serializing_if = "Option::is_none")]
        auth_path: Option<String>,
        /// Headers of the request that are sent along. None: all.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        allowed_headers: Vec<String>,
        /// Headers of its answer that the backend gets.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        allowed_response_headers: Vec<String>,
        /// Where people who are refused (401) are sent; `rd` says where they wanted to go.
        #[serde(skip_serializing_if = "Option::is_none")]
        signin_url: Option<String>,
        /// How `rd` says it. Default: Url.
        #[serde(skip_serializing_if = "Option::is_none")]
        signin_return: Option<SigninReturn>,
        /// So long it may take. Default: `5s`.
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout: Option<String>,
    }

    /// `extAuthz`: as the Gateway API's ExternalAuth: an authorisation server of Envoy's protocol, or of HTTP.
    ExtAuthz {
        /// Whom.
        #[serde(skip_serializing_if = "Option::is_none")]
        backend_ref: Option<BackendRef>,
        /// What it speaks. Default: GRPC.
        #[serde(skip_serializing_if = "Option::is_none")]
        protocol: Option<AuthProtocol>,
        /// Of HTTP: stands before the request's own path.
        #[serde(skip_serializing_if = "Option::is_none")]
        auth_path: Option<String>,
        /// Headers of the request that are sent along. None: all by GRPC, those of the Gateway API by HTTP.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        allowed_headers: Vec<String>,
        /// Of HTTP: headers of its answer that the backend gets.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        allowed_response_headers: Vec<String>,
        /// So much of the body is sent along. Default: nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 65535))]
        body_bytes_max: Option<u32>,
        /// So long it may take. Default: `5s`.
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout: Option<String>,
    }

    /// `extProc`: a processor of Envoy's protocol (`envoy.service.ext_proc.v3.ExternalProcessor`) sees requests and answers, changes them, or
    /// answers itself.
    ExtProc {
        /// Whom.
        #[serde(skip_serializing_if = "Option::is_none")]
        backend_ref: Option<BackendRef>,
        /// Headers of requests. Default: Send.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_header_mode: Option<HeaderMode>,
        /// Bodies of requests. Default: None.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_body_mode: Option<BodyMode>,
        /// Trailers of requests, where there are any. Default: Skip.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_trailer_mode: Option<HeaderMode>,
        /// Headers of answers. Default: Send.
        #[serde(skip_serializing_if = "Option::is_none")]
        response_header_mode: Option<HeaderMode>,
        /// Bodies of answers. Default: None.
        #[serde(skip_serializing_if = "Option::is_none")]
        response_body_mode: Option<BodyMode>,
        /// Trailers of answers, where there are any. Default: Skip.
        #[serde(skip_serializing_if = "Option::is_none")]
        response_trailer_mode: Option<HeaderMode>,
        /// The processor may say with its answer to headers what it is shown of the rest.
        #[serde(skip_serializing_if = "Option::is_none")]
        allow_mode_override: Option<bool>,
        /// A longer body is not kept to be shown whole: 413, of an answer 502. Default: 1048576 (1 MiB).
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 16_777_216))]
        buffer_bytes_max: Option<u32>,
        /// So long each of its answers may take. Default: `5s`.
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout: Option<String>,
        /// Where it fails everything goes on without it; else nobody passes (503).
        #[serde(skip_serializing_if = "Option::is_none")]
        fail_open: Option<bool>,
        /// Attributes that it is told with the request, by Envoy's names: request.path, source.address and others.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        request_attributes: Vec<String>,
        /// Attributes that it is told with the answer: those, and response.code.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        response_attributes: Vec<String>,
        /// Namespaces of the metadata that filters before it left, which it is told: envoy.filters.http.ext_authz, for example.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        forward_metadata: Vec<String>,
        /// Namespaces of which it may leave metadata for filters after it. None: what it says of any is left out.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        receive_metadata: Vec<String>,
    }

    /// `cache`: answers are kept and given again, as a shared cache may (RFC 9111, RFC 5861); each says what became of it (RFC 9211). Each replica
    /// keeps for itself.
    Cache {
        /// So much is kept, least used first out. Default: 67108864 (64 MiB).
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 65536))]
        bytes_max: Option<u64>,
        /// A longer body is not kept. Default: 1048576 (1 MiB).
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        entry_bytes_max: Option<u64>,
    }

    /// `headers`: changes headers.
    Headers {
        /// Of requests.
        #[serde(skip_serializing_if = "Option::is_none")]
        request: Option<HeaderChange>,
        /// Of answers.
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<HeaderChange>,
    }

    /// `path`: another path or host towards the backend.
    Path {
        /// The whole path.
        #[serde(skip_serializing_if = "Option::is_none")]
        full: Option<String>,
        /// This at its beginning is replaced by `substitution`.
        #[serde(skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
        /// What this regular expression finds is replaced by `substitution`, with `$1` and the like.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 1024))]
        pattern: Option<String>,
        /// For `prefix` and `pattern`.
        #[serde(skip_serializing_if = "Option::is_none")]
        substitution: Option<String>,
        /// The host.
        #[serde(skip_serializing_if = "Option::is_none")]
        hostname: Option<String>,
    }

}

impl BackendRef {
    /// As routes write it.
    pub fn target(&self) -> BackendObjectReference {
        BackendObjectReference {
            group: self.group.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            namespace: None,
            port: Some(self.port),
        }
    }
}
