//! Why a question that was asked of others has no reply. Pure.

use hickory_proto::op::ResponseCode;

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failed {
    /// Nobody is known that could be asked.
    #[error("no DNS server is known")]
    NoServers,
    /// Too much is in flight there already.
    #[error("too many questions in flight")]
    Busy,
    /// It answered, but neither yes nor no.
    #[error("answered {0}")]
    Code(ResponseCode),
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// It could not be reached.
    #[error("{0}")]
    Network(String),
    /// What it said may not be passed on.
    #[error("{0}")]
    Unusable(String),
    /// The query has asked as much as one may.
    #[error("the query has asked {0} questions, which is all that one may", crate::budget::QUESTIONS_MAX)]
    Exhausted,
    /// Too many names that don't exist were asked for.
    #[error("too many names that do not exist are asked for")]
    Flooded,
    /// What is asked of it comes back to us.
    #[error("loop via {0}")]
    Loop(String),
}

impl Failed {
    /// Nobody waits for who does not answer our probes.
    pub(crate) fn unprobed() -> Self {
        Self::Network("it does not answer our probes".to_owned())
    }

    /// Nobody waits for who has left so many questions without an answer.
    pub(crate) fn unanswered() -> Self {
        Self::Network("it has left its last questions without an answer".to_owned())
    }

    /// Whether somebody was asked and said nothing; `None` where nobody was asked.
    pub(super) fn is_silence(&self) -> Option<bool> {
        match self {
            Self::TimedOut | Self::Network(_) => Some(true),
            Self::Code(_) | Self::Unusable(_) | Self::Loop(_) => Some(false),
            Self::NoServers | Self::Busy | Self::Exhausted | Self::Flooded => None,
        }
    }

    /// The word for it in metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::NoServers => "no_servers",
            Self::Busy => "busy",
            Self::Code(_) => "code",
            Self::TimedOut => "timeout",
            Self::Network(_) => "network",
            Self::Unusable(_) => "unusable",
            Self::Loop(_) => "loop",
            Self::Exhausted => "exhausted",
            Self::Flooded => "flooded",
        }
    }
}
