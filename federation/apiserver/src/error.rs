//! Why the server can't start or go on. Refusals of single requests are not here: those are Kubernetes `Status`es.

use std::io::ErrorKind;
use std::path::PathBuf;

/// What keeps the embedded API server from running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the file open.
    #[error("data file `{}`: in use by another process; stop that one first or choose another directory", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is not one of this server's.
    #[error("data file `{}`: not a data file of this server, or of a later version; it was left as it is", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A record fails its checksum.
    #[error("data file `{}`: the record `{key}` is corrupt; restore a snapshot (`atoll hub restore`)", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Collection, namespace and name of the object.
        key: String,
    },
    /// The file is so damaged that reading it makes no sense.
    #[error("data file `{}`: is damaged; restore a snapshot (`atoll hub restore`)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file that is to be made exists already.
    #[error("file `{}` exists already; nothing was written", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be read or written.
    #[error("data file `{}`: {cause}{}", path.display(), remedy(cause))]
    Storage {
        /// The file.
        path: PathBuf,
        /// What the store said.
        #[source]
        cause: Box<redb::Error>,
    },
    /// A file can't be copied.
    #[error("file `{}`: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The writer's thread can't be started.
    #[error("can't start the writer: {cause}")]
    Thread {
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// An object that the server makes at its first start was refused.
    #[error("can't make the built-in object `{object}`: {why}")]
    Bootstrap {
        /// Its path.
        object: String,
        /// The refusal.
        why: String,
    },
    /// A certificate can't be made or read.
    #[error("certificate for `{subject}`: {why}")]
    Certificate {
        /// Whose.
        subject: String,
        /// What is wrong.
        why: String,
    },
    /// The listener failed.
    #[error("listener: {cause}")]
    Listen {
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
}

/// What to do about it, where that is known.
fn remedy(cause: &redb::Error) -> &'static str {
    let kind = if let redb::Error::Io(io) = cause { Some(io.kind()) } else { None };
    match (cause, kind) {
        (redb::Error::Corrupted(_), _) | (_, Some(ErrorKind::UnexpectedEof)) => {
            "; restore a snapshot (`atoll hub restore`)"
        }
        (_, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)) => {
            "; make room for it, then start again"
        }
        _ => "",
    }
}
