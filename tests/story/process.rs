//! A process of the binary under test: started, killed, started again; its output in one log.
//! It dies with the story, however that ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// Lines of a log that are shown on failure.
const TAIL: usize = 30;

/// One long-running process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    words: Vec<String>,
    variables: Vec<(String, String)>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// A process that is not started yet.
    pub(crate) fn new(name: &str, dir: &Path, words: &[&str], variables: &[(&str, &str)]) -> Self {
        Self {
            name: name.to_owned(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            variables: variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            log: dir.join(format!("{name}.log")),
            child: Mutex::new(None),
        }
    }

    /// Starts it.
    pub(crate) async fn start(&self) -> Result<()> {
        let mut child = self.child.lock().await;
        ensure!(child.is_none(), "{} runs already", self.name);
        *child = Some(self.spawn(Self::sink(&self.log)?.into())?);
        Ok(())
    }

    /// Starts it and returns the first line that it writes on stdout.
    pub(crate) async fn start_and_read(&self) -> Result<String> {
        use tokio::io::{AsyncBufReadExt as _, BufReader};
        let mut held = self.child.lock().await;
        let mut child = self.spawn(Stdio::piped())?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let first = tokio::time::timeout(std::time::Duration::from_secs(60), lines.next_line()).await;
        *held = Some(child);
        match first {
            Ok(Ok(Some(line))) => Ok(line),
            other => bail!("{} said nothing on stdout: {other:?}\n{}", self.name, self.tail()),
        }
    }

    fn spawn(&self, stdout: Stdio) -> Result<Child> {
        // The kernel kills it when we die, by whatever.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.words).envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(stdout).stderr(Self::sink(&self.log)?).kill_on_drop(true);
        command.spawn().with_context(|| format!("start {}", self.words.join(" ")))
    }

    fn sink(log: &Path) -> Result<File> {
        File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))
    }

    /// Ends it as a loss of power does.
    pub(crate) async fn kill(&self) -> Result<()> {
        let Some(mut child) = self.child.lock().await.take() else { return Ok(()) };
        child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// Asks it to end, as Ctrl-C does, and returns how it ended.
    pub(crate) async fn interrupt(&self) -> Result<std::process::ExitStatus> {
        let mut child = self.child.lock().await.take().with_context(|| format!("{} does not run", self.name))?;
        let pid = child.id().with_context(|| format!("{} has ended by itself:\n{}", self.name, self.tail()))?;
        let said = Command::new("kill").args(["-INT", &pid.to_string()]).status().await?;
        ensure!(said.success(), "{} (pid {pid}) can't be interrupted", self.name);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), child.wait()).await;
        Ok(ended.with_context(|| format!("{} has not ended 20 s after SIGINT:\n{}", self.name, self.tail()))??)
    }

    /// `Err` with its last words if it has ended by itself.
    pub(crate) async fn check(&self) -> Result<()> {
        let mut held = self.child.lock().await;
        let child = held.as_mut().with_context(|| format!("{} does not run", self.name))?;
        match child.try_wait()? {
            Some(status) => bail!("{} has ended, {status}:\n{}", self.name, self.tail()),
            None => Ok(()),
        }
    }

    /// Its last lines.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Prints them.
    pub(crate) fn print_tail(&self) {
        println!("--- {} said last ({}):\n{}\n", self.name, self.log.display(), self.tail());
    }
}
