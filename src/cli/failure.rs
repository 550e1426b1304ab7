//! How a command ends when it does not end well: an exit code and one message that names the object, why, and what to do.
//!
//! In: errors of the API and of parts. Out: [`Failure`]. Codes: 1 failed, 2 usage, 3 refused by policy (RBAC included), 4 unreachable.

use std::error::Error as StdError;
use std::fmt;

/// What every command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command failed. An empty message prints nothing: what was found is the answer already.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// For people.
    pub(crate) message: String,
}

impl Failure {
    /// It could not be done.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// The answer is no, and was printed.
    pub(crate) const fn negative() -> Self {
        Self { code: 1, message: String::new() }
    }

    /// It was asked for wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// A policy says no.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// Nobody answers.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self { code: 4, message: message.into() }
    }

    /// What an error of the API means while `what` was tried.
    pub(crate) fn of_api(what: impl fmt::Display, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::refused(format!("{what}: the API server does not know these credentials")),
                403 => Self::refused(format!("{what}: {}", status.message)),
                503 | 504 => Self::unreachable(format!("{what}: {}", status.message)),
                _ => Self::failed(format!("{what}: {}", said(&status.message, &status.reason))),
            },
            kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
                let hint = "is it running, and is this the right kubeconfig?";
                Self::unreachable(format!("{what}: the API server can't be reached ({}): {hint}", root_cause(error)))
            }
            other => Self::failed(format!("{what}: {}", root_cause(other))),
        }
    }

    /// For `map_err`: an error of the API while `what` was tried.
    pub(crate) fn api(what: impl fmt::Display) -> impl FnOnce(kube::Error) -> Self {
        move |error| Self::of_api(what, &error)
    }

    /// For `map_err`: any other error while `what` was tried.
    pub(crate) fn on<E: StdError>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::failed(format!("{what}: {error}"))
    }
}

impl From<anyhow::Error> for Failure {
    /// Errors of the parts: the chain as one line, the code that it stands for.
    fn from(error: anyhow::Error) -> Self {
        Self { code: crate::error::code(&error), message: crate::error::line(&error) }
    }
}

fn said(message: &str, reason: &str) -> String {
    if message.is_empty() { reason.to_owned() } else { message.to_owned() }
}

/// The innermost cause: what the network or the file said.
pub(crate) fn root_cause(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn the_exit_code_says_who_said_no() {
        for (http, code) in [(401, 3), (403, 3), (404, 1), (409, 1), (422, 1), (500, 1), (503, 4)] {
            let status = Status { code: http, message: "no".into(), ..Status::default() };
            assert_eq!(Failure::of_api("get x", &kube::Error::Api(Box::new(status))).code, code, "{http}");
        }
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let failure = Failure::of_api("get x", &kube::Error::Service(Box::new(refused)));
        assert_eq!(failure.code, 4);
        assert!(failure.message.contains("connection refused"), "{}", failure.message);
    }
}
