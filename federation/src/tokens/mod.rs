//! Join tokens: made by whoever may write Secrets in `atoll-system`, redeemed once, for one name, in time.
//!
//! At rest a token is a Secret labelled `atoll.dev/token` that holds the hash of its secret word, the name, the end and what the
//! Cluster is to look like. Who redeems it marks it used by an update that names the resource version read, so that of
//! two racers exactly one wins. The text form is [`atoll_api::token::JoinToken`].

mod create;
mod redeem;

use std::collections::BTreeMap;
use std::time::Duration;

use atoll_api::kinds::ClusterSpec;
use atoll_api::names::ClusterName;
pub use create::{Created, create_token};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
pub(crate) use redeem::redeem;
use sha2::{Digest as _, Sha256};

/// Label of a token's Secret; its value is the member's name.
pub const TOKEN_LABEL: &str = "atoll.dev/token";
/// How long a token lasts where nothing else is said.
pub const TTL: Duration = Duration::from_secs(15 * 60);
/// Longest life of a token.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// What `atoll token create` asks for.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The one name that it is to be good for.
    pub cluster: ClusterName,
    /// How long, at most [`TTL_MAX`].
    pub ttl: Duration,
    /// Environment of the Cluster that the join makes; guessed from its name where absent.
    pub environment: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Its cluster set.
    pub cluster_set: Option<String>,
}

impl TokenRequest {
    /// A request with nothing but a name.
    pub fn new(cluster: ClusterName) -> Self {
        Self { cluster, ttl: TTL, environment: None, region: None, zone: None, cluster_set: None }
    }

    fn spec(&self) -> ClusterSpec {
        ClusterSpec {
            environment: self.environment.clone().unwrap_or_else(|| guess_environment(self.cluster.as_str())),
            region: self.region.clone(),
            zone: self.zone.clone(),
            cluster_set: self.cluster_set.clone(),
            ..ClusterSpec::default()
        }
    }
}

/// Why a token was not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The hub never saw it, or it was removed long after its end.
    #[error("token for cluster `{0}` is not known here: was it made by another hub?")]
    Unknown(ClusterName),
    /// It was used.
    #[error("token for cluster `{0}` was used at {1}: a token works once, make another with `atoll token create {0}`")]
    Used(ClusterName, String),
    /// Its time is over.
    #[error("token for cluster `{0}` expired at {1}: make another with `atoll token create {0}`")]
    Expired(ClusterName, Timestamp),
    /// Good for another name.
    #[error("token is for cluster `{made}`, not for `{asked}`")]
    OtherName {
        /// The name it was made for.
        made: String,
        /// The name it says.
        asked: ClusterName,
    },
    /// Not a token.
    #[error(transparent)]
    Malformed(#[from] atoll_api::token::BadToken),
    /// Lasts too long or not at all.
    #[error("token for cluster `{0}`: its life must be between 1 s and 24 h")]
    Ttl(ClusterName),
    /// No hub has ever run on this API server.
    #[error("configmap atoll-system/atoll-hub: {0}; has a hub run here?")]
    NoHub(String),
    /// The API server refused.
    #[error("token for cluster `{0}`: {1}")]
    Api(ClusterName, #[source] Box<kube::Error>),
}

/// `prod-eu` → `prod`: the environment that a name begins with, else the name itself.
pub fn guess_environment(name: &str) -> String {
    let first = name.split('-').next().unwrap_or(name);
    let known = ["dev", "test", "prod", "dr"]
        .into_iter()
        .find(|known| first.trim_end_matches(|c: char| c.is_ascii_digit()) == *known);
    known.unwrap_or(name).to_owned()
}

/// A token as its Secret holds it.
#[derive(Debug, Clone, PartialEq)]
struct Stored {
    hash: String,
    cluster: String,
    expires: Timestamp,
    used: Option<String>,
    spec: ClusterSpec,
}

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

/// The Secret's name says nothing that helps to guess the word.
fn object_name(hash: &str) -> String {
    format!("atoll-token-{}", &hash[..16])
}

impl Stored {
    fn read(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |field: &str| std::str::from_utf8(&data.get(field)?.0).ok().map(str::to_owned);
        Some(Self {
            hash: text("hash")?,
            cluster: text("cluster")?,
            expires: text("expires")?.parse().ok()?,
            used: text("used"),
            spec: serde_json::from_str(&text("spec")?).ok()?,
        })
    }

    fn data(&self) -> BTreeMap<String, ByteString> {
        let spec = serde_json::to_string(&self.spec).expect("a spec is plain JSON");
        let expires = self.expires.to_string();
        let fields = [("hash", &self.hash), ("cluster", &self.cluster), ("expires", &expires), ("spec", &spec)];
        let used = self.used.as_ref().map(|used| ("used", used));
        fields.into_iter().chain(used).map(|(k, v)| (k.to_owned(), ByteString(v.clone().into_bytes()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_guessed_from_the_first_word_of_the_name() {
        for (name, environment) in [
            ("prod-eu", "prod"),
            ("dev", "dev"),
            ("dr", "dr"),
            ("test2", "test"),
            ("drone", "drone"),
            ("lab", "lab"),
            ("production", "production"),
        ] {
            assert_eq!(guess_environment(name), environment, "{name}");
        }
    }

    #[test]
    fn a_token_reads_back_from_its_secret() {
        let request = TokenRequest { region: Some("eu".into()), ..TokenRequest::new("prod-eu".parse().unwrap()) };
        let stored = Stored {
            hash: hash("word"),
            cluster: "prod-eu".into(),
            expires: "2026-01-01T00:00:00Z".parse().unwrap(),
            used: None,
            spec: request.spec(),
        };
        let secret = Secret { data: Some(stored.data()), ..Secret::default() };
        assert_eq!(Stored::read(&secret), Some(stored.clone()));
        assert!(!format!("{:?}", stored.data()).contains("word"));
    }
}
