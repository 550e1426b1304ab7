//! The testbed's running programs. Every one carries `ATOLL_TESTBED=<key>/<member>/<part>` in its environment (pods'
//! containers too: their runtime gives it to them), so that the list of what is ours is `/proc` itself and survives
//! any crash of ours; nothing is killed that does not carry the mark or descend from what does.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::shell::{finish, wait};

/// The variable that marks what is ours.
pub(crate) const MARK: &str = "ATOLL_TESTBED";

/// One running program of the testbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: i32,
    /// Whose it is: a member, `hub` or `lab`.
    pub member: String,
    /// Which part: `kube-apiserver`, `kubelet`, …, `pod` for containers, `shim` for their supervisors.
    pub part: String,
}

/// Where a program is to run.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) home: &'a Home,
    pub(crate) member: &'a str,
    /// Its network namespace.
    pub(crate) namespace: String,
    /// The process whose mount namespace it shares, if any.
    pub(crate) anchor: Option<i32>,
}

impl Place<'_> {
    /// The words before a program's own that put it into its namespaces.
    pub(crate) fn enter(&self) -> Vec<String> {
        // Not `ip netns exec`: it mounts /sys anew and the kubelet then finds no cgroups.
        let mut words = vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.namespace)];
        if let Some(anchor) = self.anchor {
            words.push(format!("--mount=/proc/{anchor}/ns/mnt"));
        }
        words.push("--".to_owned());
        words
    }

    fn mark(&self, part: &str) -> String {
        format!("{}/{}/{part}", self.home.key, self.member)
    }

    /// Where that part logs to.
    pub(crate) fn log(&self, part: &str) -> PathBuf {
        self.home.member(self.member).join("log").join(format!("{part}.log"))
    }

    /// Starts a program that outlives us, its output to its log.
    pub(crate) async fn start(&self, part: &str, words: &[String], variables: &[(&str, String)]) -> Result<()> {
        let log = self.log(part);
        fs::create_dir_all(log.parent().unwrap_or(Path::new("/"))).map_err(Error::on(&log))?;
        let file = File::options().create(true).append(true).open(&log).map_err(Error::on(&log))?;
        let again = file.try_clone().map_err(Error::on(&log))?;
        // `setsid --fork` gives it to init: no zombie of ours, no signal from our terminal.
        let mut command = Command::new("setsid");
        command.arg("--fork").args(self.enter()).args(words).env_clear().env("PATH", path()).env("HOME", "/root");
        command.envs(variables.iter().map(|(name, value)| (name, value))).env(MARK, self.mark(part));
        command.current_dir("/").stdin(Stdio::null()).stdout(file).stderr(again);
        finish(command, part, "").await?;
        Ok(())
    }

    /// Runs a program there to its end.
    pub(crate) async fn run(&self, words: &[&str], input: &str) -> Result<String> {
        let mut all = self.enter();
        all.extend(words.iter().map(|word| (*word).to_owned()));
        crate::shell::feed(&all, input).await
    }

    /// The last lines of a part's log, for messages.
    pub(crate) fn last_words(&self, part: &str) -> String {
        let text = fs::read(self.log(part)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Its processes of that part now.
    pub(crate) fn find(&self, part: &str) -> Vec<Process> {
        let mut found = processes(self.home);
        found.retain(|process| process.member == self.member && process.part == part);
        found
    }
}

/// A search path that finds /usr/sbin also where the caller has none.
pub(crate) fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// Every process of that testbed now, those without a mark that descend from marked ones included.
#[must_use]
pub fn processes(home: &Home) -> Vec<Process> {
    let mut marked: HashMap<i32, (String, String)> = HashMap::new();
    let mut parents: HashMap<i32, i32> = HashMap::new();
    for pid in pids() {
        if let Some(parent) = parent(pid) {
            parents.insert(pid, parent);
        }
        if let Some(mark) = mark(pid, &home.key) {
            marked.insert(pid, mark);
        }
    }
    let mut found: Vec<Process> = Vec::new();
    for pid in parents.keys().copied() {
        let mut at = pid;
        // Bounded by the depth of the process tree.
        for _ in 0..64 {
            if let Some((member, part)) = marked.get(&at) {
                found.push(Process { pid, member: member.clone(), part: refine(pid, at, part) });
                break;
            }
            let Some(up) = parents.get(&at) else { break };
            at = *up;
        }
    }
    found.sort_by_key(|process| process.pid);
    found
}

/// What runs under containerd's mark is containerd itself, a shim, or (unmarked, below a shim) a container.
fn refine(pid: i32, marked: i32, part: &str) -> String {
    if part != "containerd" {
        return part.to_owned();
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        // On its way to become containerd it is these first.
        "containerd" | "setsid" | "nsenter" => "containerd".to_owned(),
        _ if pid == marked => "shim".to_owned(),
        _ => "pod".to_owned(),
    }
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything; state and parent follow the last bracket.
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    if rest.next()? == "Z" {
        return None;
    }
    rest.next()?.parse().ok()
}

/// Whether nothing of a process is left but a zombie: its first thread dies before the others, which hold its sockets.
fn ended(pid: i32) -> bool {
    parent(pid).is_none() && fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1
}

fn mark(pid: i32, key: &str) -> Option<(String, String)> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{MARK}={key}/");
    let value = environment.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(prefix.as_bytes()))?;
    let (member, part) = std::str::from_utf8(value).ok()?.split_once('/')?;
    Some((member.to_owned(), part.to_owned()))
}

/// Sends a signal; a process that is gone already is no failure.
pub fn signal(found: &[Process], signal: Signal) {
    for process in found {
        let _ = kill(Pid::from_raw(process.pid), signal);
    }
}

/// Ends every process that `chosen` picks and waits until they are gone.
///
/// # Errors
/// Some would not go within a minute.
pub async fn end(home: &Home, chosen: impl Fn(&Process) -> bool) -> Result<()> {
    let pick = || processes(home).into_iter().filter(|process| chosen(process)).collect::<Vec<_>>();
    // Stopped first, until no new ones appear: else a parent would start more between the look and the blow.
    let mut known = BTreeSet::new();
    for _ in 0..50 {
        let found = pick();
        let new: Vec<Process> = found.into_iter().filter(|process| !known.contains(&process.pid)).collect();
        if new.is_empty() {
            break;
        }
        signal(&new, Signal::SIGSTOP);
        known.extend(new.iter().map(|process| process.pid));
    }
    for pid in &known {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    wait("the processes end", Duration::from_secs(60), || async {
        let left = pick();
        signal(&left, Signal::SIGKILL);
        let gone = known.iter().all(|pid| ended(*pid));
        if left.is_empty() && gone { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
}
