//! Filters of HTTPRoute and GRPCRoute rules.

use serde::{Deserialize, Serialize};

use super::{BackendObjectReference, LocalObjectReference};

/// One filter: its type, and the field of that type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPRouteFilter {
    /// RequestHeaderModifier, ResponseHeaderModifier, RequestRedirect, URLRewrite, RequestMirror, CORS, ExternalAuth or ExtensionRef.
    #[serde(rename = "type")]
    pub filter_type: String,
    /// Changes headers of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HTTPHeaderFilter>,
    /// Changes headers of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HTTPHeaderFilter>,
    /// Sends a copy elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<HTTPRequestMirror>,
    /// Answers with a redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<HTTPRequestRedirect>,
    /// Changes host or path on the way to the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<HTTPUrlRewrite>,
    /// Cross-origin resource sharing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<HTTPCors>,
    /// Asks somebody whether the request may pass (experimental channel).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<HTTPExternalAuth>,
    /// A filter of the controller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension_ref: Option<LocalObjectReference>,
}

/// Header changes: set, then add, then remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HTTPHeaderFilter {
    /// Replaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HTTPHeader>,
    /// Appends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HTTPHeader>,
    /// Takes away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HTTPHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Sends a copy of the request elsewhere and ignores the answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPRequestMirror {
    /// Where.
    pub backend_ref: BackendObjectReference,
    /// How many of a hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<i32>,
    /// Or a fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

/// So many of so many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fraction {
    /// So many …
    pub numerator: i32,
    /// … of so many; absent: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denominator: Option<i32>,
}

/// Cross-origin resource sharing, as the Fetch standard has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPCors {
    /// Origins that may: exact, with `*.` before the host's suffix, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_origins: Vec<String>,
    /// Whether cookies and the like may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Methods that may be used, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// Headers that may be sent, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Headers that may be read, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// For how many seconds an answer to a preflight holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i32>,
}

/// Asks somebody whether the request may pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPExternalAuth {
    /// GRPC or HTTP.
    pub protocol: String,
    /// Whom.
    pub backend_ref: BackendObjectReference,
    /// For GRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GRPCAuthConfig>,
    /// For HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPAuthConfig>,
    /// How much of the body is sent along; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_body: Option<ForwardBodyConfig>,
}

/// What a gRPC authorisation server is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GRPCAuthConfig {
    /// Headers of the request; none: all.
    #[serde(rename = "allowedHeaders", skip_serializing_if = "Vec::is_empty")]
    pub allowed_headers: Vec<String>,
}

/// What an HTTP authorisation server is sent, and what of its answer counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPAuthConfig {
    /// Before the request's own path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Headers of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_headers: Vec<String>,
    /// Headers of its answer that go to the backend.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_response_headers: Vec<String>,
}

/// How much of a body is sent along.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ForwardBodyConfig {
    /// Bytes.
    pub max_size: u16,
}

/// Answers with a redirect; what is absent stays as in the request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPRequestRedirect {
    /// http or https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HTTPPathModifier>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// 301, 302 (where absent), 303, 307 or 308.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
}

/// Changes host or path on the way to the backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HTTPUrlRewrite {
    /// Host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HTTPPathModifier>,
}

/// A new path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPPathModifier {
    /// ReplaceFullPath or ReplacePrefixMatch.
    #[serde(rename = "type")]
    pub modifier_type: String,
    /// The whole new path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_full_path: Option<String>,
    /// What replaces the matched prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_prefix_match: Option<String>,
}
