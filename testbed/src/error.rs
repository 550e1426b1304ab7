//! What can go wrong in the testbed, each naming the object and what to do. Never retried here: the caller decides.

use std::io;
use std::path::Path;

/// A failure of the testbed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or socket failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted on which object.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program that we ran to its end failed.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it said on both streams.
        output: String,
    },
    /// A condition did not hold in time.
    #[error("{what}: not within {seconds} s; last: {last}")]
    Late {
        /// The condition.
        what: String,
        /// The deadline.
        seconds: u64,
        /// What was seen last.
        last: String,
    },
    /// The testbed can't or won't do this here; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// An API server refused or failed.
    #[error("{what}: {source}")]
    Kube {
        /// The call.
        what: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// A registry answered what it should not.
    #[error("{0}")]
    Registry(String),
}

/// The testbed's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err` on an I/O result about a path.
    pub(crate) fn on(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { what: path.display().to_string(), source }
    }

    /// For `map_err` on an I/O result about anything else.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }

    /// For `map_err` on a Kubernetes call.
    pub(crate) fn kube(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Kube { what: what.into(), source: Box::new(source) }
    }
}
