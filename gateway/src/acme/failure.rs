//! Why an order did not come to its end, told apart by whom it concerns and when it is worth to try again. Pure.

use std::time::Duration;

use instant_acme::{Error, Problem};

const KIND: &str = "urn:ietf:params:acme:error:";

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The CA as a whole: no other order would do better now.
    Authority(String),
    /// It does not know our account any more.
    Account(String),
    /// The CA does not want to issue this certificate.
    Refused(String),
    /// It wants to be asked less often.
    TooOften(String),
    /// Nothing was decided: the same may go well at once.
    Again(String),
    /// The hub's API does not take what is to be written.
    Hub(String),
    /// There is a Secret of that name, and it is somebody else's.
    Taken(String),
}

impl Failure {
    /// What is said of it.
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Authority(why)
            | Self::Account(why)
            | Self::Refused(why)
            | Self::TooOften(why)
            | Self::Again(why)
            | Self::Hub(why)
            | Self::Taken(why) => why,
        }
    }

    /// What the hub's API said.
    pub(super) fn hub(object: &str, error: &kube::Error) -> Self {
        Self::Hub(format!("{object}: not written: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::from(problem),
            Error::Timeout(_) => Self::Refused("the CA did not come to an end in time".to_owned()),
            Error::Unsupported(what) => Self::Refused(format!("the CA does not have {what}")),
            error => Self::Authority(error.to_string()),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let kind = problem.r#type.as_deref().unwrap_or_default().trim_start_matches(KIND).to_owned();
        let why = told(&problem);
        match kind.as_str() {
            "badNonce" => Self::Again(why),
            "serverInternal" | "userActionRequired" => Self::Authority(why),
            "accountDoesNotExist" => Self::Account(why),
            "rateLimited" => Self::TooOften(why),
            _ if problem.status.is_some_and(|status| status >= 500) => Self::Authority(why),
            _ => Self::Refused(why),
        }
    }
}

/// A problem in one line.
pub(super) fn told(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("an error").trim_start_matches(KIND);
    let mut all = format!("{kind}: {}", problem.detail.as_deref().unwrap_or("no detail"));
    for part in &problem.subproblems {
        all.push_str(&format!("; {part}"));
    }
    all
}

/// So long is waited after the nth failure in a row: four in the first hour at most, as CAs bound failed validations (Let's Encrypt: five an
/// hour for a name), and four a day in the end.
pub(super) fn pause(failures: u32) -> Duration {
    const MINUTES: [u64; 8] = [1, 5, 15, 30, 60, 120, 240, 360];
    let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(MINUTES.len() - 1);
    Duration::from_secs(60 * MINUTES[at])
}

/// So long after the nth failure in a row that concerns the CA as a whole.
pub(super) fn pause_all(failures: u32) -> Duration {
    Duration::from_secs(5 << failures.saturating_sub(1).min(6))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn problems_are_told_apart_by_whom_they_concern() {
        let of = |kind: &str, status: u16| {
            let said = json!({"type": format!("{KIND}{kind}"), "detail": "no", "status": status});
            Failure::from(serde_json::from_value::<Problem>(said).unwrap())
        };
        for (kind, status, expected) in [
            ("badNonce", 400, Failure::Again("badNonce: no".into())),
            ("rejectedIdentifier", 400, Failure::Refused("rejectedIdentifier: no".into())),
            ("rateLimited", 429, Failure::TooOften("rateLimited: no".into())),
            ("serverInternal", 500, Failure::Authority("serverInternal: no".into())),
            ("accountDoesNotExist", 400, Failure::Account("accountDoesNotExist: no".into())),
            ("something", 503, Failure::Authority("something: no".into())),
        ] {
            assert_eq!(of(kind, status), expected);
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_leave_the_bounds_of_cas_alone() {
        let minutes: Vec<u64> = (1..=9).map(|n| pause(n).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 5, 15, 30, 60, 120, 240, 360, 360]);
        let seconds: Vec<u64> = [1, 2, 7, 70].iter().map(|n| pause_all(*n).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 320, 320]);
    }
}
