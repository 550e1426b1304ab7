//! Where this program keeps things: `$ATOLL_HOME`, and data directories that are ours.
//!
//! A directory that holds other people's files is refused before anything is written into it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::error::Exit;

/// Marks a directory as ours; holds the form of what is in it.
const MARK: &str = ".atoll";
const FORM: &str = "1";

/// `$ATOLL_HOME`, else `~/.atoll`.
///
/// # Errors
/// [`Exit::Usage`] when neither says anything.
pub(crate) fn home() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let found = set("ATOLL_HOME").or_else(|| set("HOME").map(|home| home.join(".atoll")));
    let found = found.ok_or_else(|| Exit::Usage("neither ATOLL_HOME nor HOME is set: set one".into()))?;
    Ok(std::path::absolute(found)?)
}

/// This machine's name; empty where it has none.
pub(crate) fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_ascii_lowercase()
}

/// Makes a data directory or takes one that is ours, and gives its absolute path.
///
/// # Errors
/// [`Exit::Usage`] when it is a file, holds files that are not ours, or is of a later version; else as the file system says.
pub(crate) fn data_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    let shown = dir.display();
    let mark = dir.join(MARK);
    match fs::read_to_string(&mark) {
        Ok(form) if form.trim() == FORM => return Ok(dir),
        Ok(_) => {
            let why =
                format!("data directory {shown}: is of another version of atoll; use that one, or an empty directory");
            return Err(Exit::Usage(why).into());
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return Err(Exit::Usage(format!("data directory {shown}: is a file; name a directory")).into());
        }
        Err(e) => return Err(e).with_context(|| format!("data directory {shown}")),
    }
    let failed = || format!("data directory {shown}");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).with_context(failed)?;
    for entry in fs::read_dir(&dir).with_context(failed)? {
        let name = entry.with_context(failed)?.file_name();
        // What a fresh file system holds.
        if name != "lost+found" {
            let name = name.display();
            let why =
                format!("data directory {shown}: holds `{name}`, which is not atoll's; choose an empty directory");
            return Err(Exit::Usage(why).into());
        }
    }
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&mark);
    io::Write::write_all(&mut file.with_context(failed)?, FORM.as_bytes()).with_context(failed)?;
    Ok(dir)
}

/// Keeps a data directory for this process, for as long as the result is held; a process that dies lets go of it.
///
/// # Errors
/// When another process has it.
pub(crate) fn claim(dir: &Path) -> anyhow::Result<fs::File> {
    let shown = dir.display();
    let mark = fs::File::open(dir.join(MARK)).with_context(|| format!("data directory {shown}"))?;
    match mark.try_lock() {
        Ok(()) => Ok(mark),
        Err(fs::TryLockError::WouldBlock) => {
            let why = format!(
                "data directory {shown}: in use by another process; stop that one first or choose another directory"
            );
            Err(Exit::Failed(why).into())
        }
        Err(fs::TryLockError::Error(e)) => Err(e).with_context(|| format!("data directory {shown}: lock it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_others_is_refused_and_left_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fs::create_dir_all(at("theirs")).unwrap();
        fs::write(at("theirs/thesis.txt"), "x").unwrap();
        fs::create_dir_all(at("later")).unwrap();
        fs::write(at("later/.atoll"), "7").unwrap();
        fs::create_dir_all(at("fresh/lost+found")).unwrap();
        fs::write(at("file"), "x").unwrap();
        for (name, wrong) in [
            ("theirs", Some("holds `thesis.txt`")),
            ("later", Some("another version")),
            ("file", Some("is a file")),
            ("new/deep", None),
            ("fresh", None),
        ] {
            let made = data_dir(&at(name));
            match wrong {
                Some(wrong) => {
                    let error = made.unwrap_err();
                    assert!(error.to_string().contains(wrong), "{name}: {error}");
                    assert_eq!(crate::error::code(&error), 2, "{name}");
                }
                None => {
                    fs::write(made.unwrap().join("ours"), "x").unwrap();
                    data_dir(&at(name)).unwrap_or_else(|e| panic!("{name}, a second time: {e}"));
                }
            }
        }
        assert_eq!(fs::read_dir(at("theirs")).unwrap().count(), 1);
    }
}
