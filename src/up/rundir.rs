//! The run directory of one `atoll up`, and the link by which other commands find it.
//!
//! In: a data directory, or nothing. Out: a directory below `$ATOLL_HOME` (or the data directory), and `$ATOLL_HOME/config` pointing to the
//! kubeconfig in it. Another's link or file of that name is never touched. On the way out all of it goes, but for a data directory.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::config::{claim, data_dir, home};
use crate::error::{self, Exit};

const PREFIX: &str = "run-";
const KUBECONFIG: &str = "kubeconfig";
const SOCKET: &str = "control.sock";
const READY: &str = "ready.json";
/// The kubeconfigs of demo members, which live as long as we do.
const MEMBERS: &str = "members";
/// `sun_path` less its terminator.
const SOCKET_LEN_MAX: usize = 107;

/// The run directory.
#[derive(Debug)]
pub(super) struct RunDir {
    home: PathBuf,
    home_made: bool,
    dir: PathBuf,
    /// A data directory, which nobody else uses meanwhile; another one goes with us.
    kept: Option<fs::File>,
}

impl RunDir {
    /// Makes it, and removes what a killed `atoll up` has left.
    pub(super) fn make(data: Option<&Path>) -> anyhow::Result<Self> {
        Self::make_in(home()?, data)
    }

    fn make_in(home: PathBuf, data: Option<&Path>) -> anyhow::Result<Self> {
        let failed = || format!("make {}", home.display());
        let home_made = !home.exists();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&home).with_context(failed)?;
        sweep(&home);
        let (dir, kept) = match Self::choose(&home, data) {
            Ok(chosen) => chosen,
            Err(error) => {
                if home_made {
                    let _ = fs::remove_dir(&home);
                }
                return Err(error);
            }
        };
        let made = Self { home, home_made, dir, kept };
        let socket = made.socket();
        if socket.as_os_str().len() > SOCKET_LEN_MAX {
            let (shown, least) = (socket.display().to_string(), SOCKET_LEN_MAX);
            made.leave();
            let why =
                format!("{shown}: longer than {least} bytes, which is the limit for a socket; use a shorter directory");
            return Err(Exit::Usage(why).into());
        }
        Ok(made)
    }

    fn choose(home: &Path, data: Option<&Path>) -> anyhow::Result<(PathBuf, Option<fs::File>)> {
        if let Some(data) = data {
            let dir = data_dir(data)?;
            let held = claim(&dir)?;
            return Ok((dir, Some(held)));
        }
        let dir = home.join(format!("{PREFIX}{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok((dir, None))
    }

    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.dir.join(KUBECONFIG)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }

    pub(super) fn ready(&self) -> PathBuf {
        self.dir.join(READY)
    }

    /// Where the kubeconfig of a demo member is.
    pub(super) fn member(&self, name: &str) -> PathBuf {
        self.dir.join(MEMBERS).join(format!("{name}.kubeconfig"))
    }

    /// Lets `$ATOLL_HOME/config` point to our kubeconfig, unless something else is there. Says whether it does.
    pub(super) fn link(&self) -> bool {
        let link = self.home.join("config");
        if symlink(self.kubeconfig(), &link).is_ok() {
            return true;
        }
        // A link of ours whose target is gone is what a killed `atoll up` leaves.
        let target = fs::read_link(&link).ok();
        let dead =
            target.as_deref().is_some_and(|to| to.file_name().is_some_and(|name| name == KUBECONFIG) && !to.exists());
        dead && fs::remove_file(&link).is_ok() && symlink(self.kubeconfig(), &link).is_ok()
    }

    /// Removes all that is ours: the link, the directory or, of a data directory, what only lives as long as we do.
    pub(super) fn leave(self) {
        let link = self.home.join("config");
        if fs::read_link(&link).is_ok_and(|to| to == self.kubeconfig()) {
            say(&link, fs::remove_file(&link));
        }
        if self.kept.is_some() {
            for file in [self.socket(), self.ready()] {
                say(&file, fs::remove_file(&file));
            }
            let members = self.dir.join(MEMBERS);
            say(&members, fs::remove_dir_all(&members));
        } else {
            say(&self.dir, fs::remove_dir_all(&self.dir));
        }
        if self.home_made {
            // Somebody else's file in it keeps it.
            let _ = fs::remove_dir(&self.home);
        }
    }
}

fn say(path: &Path, done: io::Result<()>) {
    if let Err(error) = done
        && error.kind() != io::ErrorKind::NotFound
    {
        error::say(format_args!("{} is left behind: {error}", path.display()));
    }
}

/// Removes run directories of processes that are no more.
fn sweep(home: &Path) {
    for dir in run_dirs(home) {
        let pid = dir.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(PREFIX)).unwrap_or_default();
        let dead = pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists();
        // A process of our own number has left it, for we have none yet.
        if dead || pid == std::process::id().to_string() {
            say(&dir, fs::remove_dir_all(&dir));
        }
    }
}

fn run_dirs(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX)).map(|e| e.path()).collect()
}

/// The sockets of the federations that may run: of `at` itself if that is a run directory, else of the one that `config` points to,
/// else of any below `at`.
pub(super) fn sockets(at: &Path) -> Vec<PathBuf> {
    let own = at.join(SOCKET);
    if own.exists() {
        return vec![own];
    }
    let linked = fs::read_link(at.join("config")).ok().and_then(|to| Some(to.parent()?.join(SOCKET)));
    if let Some(linked) = linked.filter(|socket| socket.exists()) {
        return vec![linked];
    }
    run_dirs(at).into_iter().map(|dir| dir.join(SOCKET)).filter(|socket| socket.exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_but_a_data_directory() {
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path().join("home");
        let run = RunDir::make_in(home.clone(), None).unwrap();
        fs::write(run.kubeconfig(), "x").unwrap();
        assert!(run.link() && fs::read_to_string(home.join("config")).unwrap() == "x");
        run.leave();
        assert!(!home.exists());

        let data = temp.path().join("data");
        let run = RunDir::make_in(home.clone(), Some(&data)).unwrap();
        fs::write(run.kubeconfig(), "x").unwrap();
        fs::write(run.ready(), "x").unwrap();
        assert!(run.link());
        run.leave();
        assert!(!home.exists() && data.join(KUBECONFIG).exists() && !data.join(READY).exists());
    }

    #[test]
    fn what_somebody_else_has_as_config_is_never_touched() {
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path();
        let run = |number: u32| RunDir {
            home: home.to_owned(),
            home_made: false,
            dir: home.join(format!("{PREFIX}{number}")),
            kept: None,
        };
        let config = home.join("config");
        let (a, b) = (run(1), run(2));
        fs::create_dir_all(&a.dir).unwrap();
        fs::write(a.kubeconfig(), "a").unwrap();

        fs::write(&config, "theirs").unwrap();
        assert!(!a.link(), "a file");
        fs::remove_file(&config).unwrap();
        symlink(home.join("elsewhere"), &config).unwrap();
        assert!(!a.link(), "a link to something that is not ours, although it dangles");
        fs::remove_file(&config).unwrap();

        assert!(a.link() && !b.link(), "the first has it");
        b.leave();
        assert!(config.exists(), "the second does not take it away");
        fs::remove_dir_all(&a.dir).unwrap();
        assert!(run(2).link(), "a dead one's is taken over");
    }

    #[test]
    fn directories_of_dead_processes_are_swept() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for name in ["run-4194305", "run-1", "run-x", "notes"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        RunDir::make_in(temp.path().to_owned(), None).unwrap().leave();
        let left = ["run-4194305", "run-1", "run-x", "notes"].map(|name| at(name).exists());
        assert_eq!(left, [false, true, true, true], "no process has a number above 2^22");
    }
}
