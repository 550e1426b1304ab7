//! How the process ends: 0 done, 1 failed, 2 usage, 3 refused by policy (RBAC included), 4 unreachable.
//!
//! In: an error with its causes. Out: one line on stderr, an exit code. Commands give the code by [`Exit`] in the chain; kube's own
//! errors are read as what they are.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use kube::config::KubeconfigError;

/// Says how the process is to end; put into an error's chain by `.context(Exit::…)` or as the error itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 1.
    Failed(String),
    /// 2: what was typed or configured makes no sense.
    Usage(String),
    /// 3: somebody who decides said no.
    Refused(String),
    /// 4: nobody answered.
    Unreachable(String),
}

impl Exit {
    fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Unreachable(_) => 4,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Failed(why) | Self::Usage(why) | Self::Refused(why) | Self::Unreachable(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for Exit {}

/// The exit code that an error stands for.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return exit.code();
    }
    error.chain().find_map(of_cause).unwrap_or(1)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(exit) = cause.downcast_ref::<Exit>() {
        return Some(exit.code());
    }
    match cause.downcast_ref::<kube::Error>()? {
        kube::Error::Api(status) if status.code == 401 || status.code == 403 => Some(3),
        kube::Error::HyperError(_) | kube::Error::Service(_) => Some(4),
        _ => None,
    }
}

/// Says an error on stderr, each cause once, and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    say(format_args!("{}", line(error)));
    ExitCode::from(code(error))
}

/// One line on stderr. That nobody reads it any more is no reason to end.
pub(crate) fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "atoll: {what}");
}

/// An error and its causes in one line; a cause that its effect has said already is left out.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        // As itself it ends with the whole status object, and below it stands that object once more.
        let status = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) if !status.message.is_empty() => Some(status.message.clone()),
            _ => None,
        };
        let read = cause.downcast_ref::<KubeconfigError>().map(of_kubeconfig);
        let (last, cause) = (status.is_some(), status.or(read).unwrap_or_else(|| cause.to_string()));
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
        if last {
            break;
        }
    }
    if let Some(remedy) = error.chain().find_map(remedy) {
        line = format!("{line}; {remedy}");
    }
    line
}

/// What is wrong with a kubeconfig, without its path, which whoever names the file has said, and in one line.
pub(crate) fn of_kubeconfig(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(cause, _) => cause.to_string(),
        KubeconfigError::Parse(cause) => cause.to_string().lines().next().unwrap_or("is no YAML").to_owned(),
        other => other.to_string(),
    }
}

/// What to do about a file that can't be used.
fn remedy(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    match cause.downcast_ref::<io::Error>()?.kind() {
        ErrorKind::PermissionDenied => Some("run atoll as whom it belongs to, or name another"),
        ErrorKind::ReadOnlyFilesystem => Some("name another, or mount that file system for writing"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some("make room there, then start again"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use kube::core::Status;

    use super::*;

    #[test]
    fn an_error_ends_the_process_with_its_code() {
        let forbidden = || kube::Error::Api(Status::failure("no", "Forbidden").with_code(403).boxed());
        let missing = || kube::Error::Api(Status::failure("gone", "NotFound").with_code(404).boxed());
        let unreachable = kube::Error::Service("connection refused".into());
        for (error, expected) in [
            (anyhow::anyhow!("x"), 1),
            (Exit::Usage("x".into()).into(), 2),
            (Err::<(), _>(Exit::Refused("x".into())).context("y").unwrap_err(), 3),
            (Err::<(), _>(io::Error::other("x")).context(Exit::Usage("y".into())).unwrap_err(), 2),
            (forbidden().into(), 3),
            (missing().into(), 1),
            (anyhow::Error::new(unreachable).context("list clusters"), 4),
        ] {
            assert_eq!(code(&error), expected, "{error:#}");
        }
    }

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let error = anyhow::anyhow!("disk full").context("write x: disk full").context("start");
        assert_eq!(line(&error), "start: write x: disk full");
        let full = Status::failure("the disk is full", "InsufficientStorage").with_code(507).boxed();
        let error = anyhow::Error::new(kube::Error::Api(full)).context("make kind x");
        assert_eq!(line(&error), "make kind x: the disk is full");
    }

    #[test]
    fn what_to_do_about_a_file_is_said_behind_all_causes() {
        for (kind, what) in [
            (ErrorKind::PermissionDenied, "run atoll as whom it belongs to"),
            (ErrorKind::ReadOnlyFilesystem, "name another"),
            (ErrorKind::StorageFull, "make room"),
        ] {
            let error = anyhow::Error::new(io::Error::from(kind)).context("open /data/hub.redb").context("start");
            let said = line(&error);
            assert!(said.starts_with("start: open /data/hub.redb: ") && said.contains(&format!("; {what}")), "{said}");
        }
        assert_eq!(line(&anyhow::Error::new(io::Error::other("odd")).context("start")), "start: odd");
    }
}
