//! Names, parsed once and valid ever after: clusters, services, DNS labels.
//!
//! Input: strings from objects, packets and flags. Output: checked types. Source: RFC 1123 §2.1 (labels), the design's
//! rules for cluster names (one label, at most 49 octets, none of the words that the hierarchy itself uses).

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Words that a cluster must not be called: the hierarchy uses them below the apex.
pub const RESERVED: &[&str] = &["svc", "pod", "region", "env", "in-addr", "ip6"];

/// Longest name of a cluster, in octets.
pub const CLUSTER_NAME_LEN_MAX: usize = 49;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Empty, or longer than allowed.
    #[error("name `{0}`: must have 1 to {1} characters")]
    Length(String, usize),
    /// Not a lower-case DNS label.
    #[error(
        "name `{0}`: must be one DNS label: lower-case letters, digits and `-`, starting and ending with a letter or digit"
    )]
    NotALabel(String),
    /// A word the hierarchy uses itself.
    #[error("name `{0}`: is reserved, choose another")]
    Reserved(String),
}

/// Whether `s` is a lower-case DNS label (RFC 1123 §2.1).
pub fn is_label(s: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let b = s.as_bytes();
    (1..=63).contains(&b.len())
        && edge(b.first())
        && edge(b.last())
        && b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
}

/// A domain name as people write it, in lower case and without its last dot; `None` where it is none.
pub fn domain(said: &str) -> Option<String> {
    let name = said.trim_end_matches('.').to_ascii_lowercase();
    (!name.is_empty() && name.len() <= 253 && name.split('.').all(is_label)).then_some(name)
}

/// The name of a member cluster: one DNS label of at most 49 octets, not reserved. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace of the hub that holds this member's Assignments.
    pub fn namespace(&self) -> String {
        format!("atoll-cluster-{}", self.0)
    }
}

impl FromStr for ClusterName {
    type Err = BadName;

    fn from_str(s: &str) -> Result<Self, BadName> {
        if s.is_empty() || s.len() > CLUSTER_NAME_LEN_MAX {
            return Err(BadName::Length(s.to_owned(), CLUSTER_NAME_LEN_MAX));
        }
        if !is_label(s) {
            return Err(BadName::NotALabel(s.to_owned()));
        }
        if RESERVED.contains(&s) {
            return Err(BadName::Reserved(s.to_owned()));
        }
        Ok(Self(s.into()))
    }
}

impl TryFrom<String> for ClusterName {
    type Error = BadName;

    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<ClusterName> for String {
    fn from(n: ClusterName) -> Self {
        n.0.as_ref().to_owned()
    }
}

impl Borrow<str> for ClusterName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A service of a namespace, without saying in which cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// The namespace, one DNS label.
    pub namespace: String,
    /// The service, one DNS label.
    pub name: String,
}

impl ServiceName {
    /// A service by its parts, unchecked: Kubernetes has checked them.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
