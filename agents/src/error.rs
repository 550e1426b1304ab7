//! What can go wrong in an agent.

use atoll_api::token::BadToken;
use atoll_reach::IdentityError;

/// Why an agent, or a step of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Neither credentials nor a token.
    #[error("this member has no credentials yet: a token of `atoll token create` is needed")]
    NoToken,
    /// No hub given and none stored.
    #[error("no hub address given; give it as `host:port`")]
    NoHub,
    /// What was given as the hub's address is none.
    #[error("hub address `{address}` is not `host:port`")]
    BadHub {
        /// What was given.
        address: String,
    },
    /// The token doesn't parse.
    #[error(transparent)]
    Token(#[from] BadToken),
    /// This member is somebody else already.
    #[error(
        "this member is joined as `{joined}` already, the token is for `{token}`; delete Secret atoll-system/atoll-agent there to join it anew"
    )]
    OtherName {
        /// As it is joined.
        joined: String,
        /// What the token says.
        token: String,
    },
    /// The hub refused.
    #[error("hub {hub} refuses: {message}")]
    Refused {
        /// Its address.
        hub: String,
        /// What it says.
        message: String,
    },
    /// The hub can't be reached; a retry helps once it can.
    #[error("hub {hub} can't be reached: {cause}")]
    Unreachable {
        /// Its address.
        hub: String,
        /// Why.
        cause: String,
    },
    /// Whoever answers there is not the hub that made the token; a retry helps if the network between is at fault.
    #[error(
        "hub {hub}: its certificate is not of the hub that made the token ({cause}); check the address, or make a token there: `atoll token create {cluster}`"
    )]
    Stranger {
        /// Its address.
        hub: String,
        /// Whom the token is for.
        cluster: String,
        /// What is wrong with the certificate.
        cause: String,
    },
    /// The hub's answer makes no sense.
    #[error("hub {hub} answered nonsense: {what}")]
    Nonsense {
        /// Its address.
        hub: String,
        /// What is wrong with it.
        what: String,
    },
    /// A certificate or key can't be used for TLS.
    #[error("credentials: {0}")]
    Identity(#[from] IdentityError),
    /// The stored credentials are broken.
    #[error("Secret atoll-system/atoll-agent is broken: {0}; delete it and join the member anew with a new token")]
    Stored(String),
    /// The member's API refused or can't be reached.
    #[error("member's API, {what}: {source}")]
    Member {
        /// What was tried.
        what: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// Making a key or request failed.
    #[error("certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// Metrics can't be registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl AgentError {
    /// An error of the member's API, with what was tried.
    pub(crate) fn member(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Member { what, source: Box::new(source) }
    }

    /// Whether the hub says that this is no member any more: its Cluster is gone, and its certificate revoked with it.
    pub(crate) fn says_gone(&self) -> bool {
        match self {
            Self::Refused { message, .. } => message.contains("is no member"),
            // The alert of a hub that has shown its own certificate.
            Self::Unreachable { cause, .. } => cause.contains("CertificateRevoked"),
            _ => false,
        }
    }

    /// Whether trying again may help without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Stranger { .. } | Self::Member { .. })
    }
}
