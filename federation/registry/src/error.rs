//! What can go wrong between two registries, always with the registry, the repository and the reference that it went wrong at.
//!
//! Never: a credential, a token or a query string in a message.

use std::{fmt, time::Duration};

use crate::name::Digest;

/// Where something went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct At {
    /// Host and port of the registry.
    pub registry: String,
    /// The repository; empty where the registry as a whole is meant.
    pub repository: String,
    /// The tag or digest; empty where the repository as a whole is meant.
    pub reference: String,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry `{}`", self.registry)?;
        match (self.repository.as_str(), self.reference.as_str()) {
            ("", _) => Ok(()),
            (repository, "") => write!(f, ", `{repository}`"),
            (repository, digest) if digest.contains(':') => write!(f, ", `{repository}@{digest}`"),
            (repository, tag) => write!(f, ", `{repository}:{tag}`"),
        }
    }
}

/// Why a copy, or a step of it, did not happen.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {why}")]
pub struct Error {
    /// Where.
    pub at: Box<At>,
    /// Why.
    #[source]
    pub why: Why,
}

impl Error {
    /// Puts `why` to a place.
    pub fn new(at: At, why: Why) -> Self {
        Self { at: Box::new(at), why }
    }

    /// Whether the same request may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match &self.why {
            Why::Unreachable(_) | Why::Broken(_) | Why::TimedOut(_) | Why::Throttled { .. } => true,
            Why::Status { status, .. } => *status >= 500 && *status != 501,
            _ => false,
        }
    }

    /// How long the registry asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match &self.why {
            Why::Throttled { retry_after } => *retry_after,
            _ => None,
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// No connection, or its TLS handshake failed.
    #[error("no connection: {0}")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke in the middle.
    #[error("connection lost: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer, or no further byte, in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// 429.
    #[error("too many requests")]
    Throttled {
        /// What the registry asked for.
        retry_after: Option<Duration>,
    },
    /// An answer that the request can't go on from.
    #[error("answered {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status {
        /// The HTTP status.
        status: u16,
        /// The registry's own words, shortened.
        message: String,
    },
    /// It isn't there.
    #[error("not found")]
    NotFound,
    /// No credentials, wrong ones, or too few rights.
    #[error("refused: {0}")]
    Denied(String),
    /// Content that isn't what its name says.
    #[error("content is not what its digest says: {0}")]
    Corrupt(String),
    /// The tag has another digest than the approved one.
    #[error("the tag moved: approved was {approved}, it is {found} now")]
    TagMoved {
        /// What was approved.
        approved: Digest,
        /// What the tag means now.
        found: Digest,
    },
    /// What the roots reach is not what was approved.
    #[error("the content differs from what was approved: approved closure {approved}, found {found}")]
    ClosureChanged {
        /// What was approved.
        approved: Digest,
        /// What is there.
        found: Digest,
    },
    /// Content of a kind, or of a size, that we don't copy.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// An answer that isn't by the specification.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// The endpoint's own settings are wrong.
    #[error("bad configuration: {0}")]
    Config(String),
    /// Somebody cancelled the job.
    #[error("cancelled")]
    Cancelled,
}

/// An error's innermost words: hyper's own say only that something failed.
pub(crate) fn innermost(e: &dyn std::error::Error) -> Box<dyn std::error::Error + Send + Sync> {
    let mut cause = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string().into()
}
