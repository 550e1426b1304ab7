//! Commands and what they said; waiting for a condition with a bound.
//! In: a command. Out: exit code, both outputs, how long it took. Never waits without a bound.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// No command of the story lasts longer.
const COMMAND_MAX: Duration = Duration::from_secs(120);

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    /// As typed, for messages.
    pub(crate) line: String,
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Its output, where it did what it was asked.
    pub(crate) fn ok(self) -> Result<String> {
        if self.code == 0 { Ok(self.out) } else { Err(self.as_error("failed")) }
    }

    /// Its output as JSON.
    pub(crate) fn json(self) -> Result<Value> {
        let line = self.line.clone();
        let out = self.ok()?;
        serde_json::from_str(&out).with_context(|| format!("`{line}` gave no JSON: {out}"))
    }

    /// That it ended with this code and said this.
    pub(crate) fn refused(self, code: i32, word: &str) -> Result<String> {
        if self.code != code || !self.err.to_lowercase().contains(&word.to_lowercase()) {
            return Err(self.as_error(&format!("should have ended with {code} and said `{word}`, but")));
        }
        Ok(self.err)
    }

    fn as_error(&self, what: &str) -> anyhow::Error {
        anyhow!("`{}` {what} (exit code {}):\n{}{}", self.line, self.code, self.out, self.err)
    }
}

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> Result<Said> {
    feed(command, "").await
}

/// Runs a command to its end with an input.
pub(crate) async fn feed(mut command: Command, input: &str) -> Result<Said> {
    let line = line(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("start `{line}`"))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    let write = async {
        // One that ends without reading all is judged by its exit code.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    let done = timeout(COMMAND_MAX, both).await.map_err(|_| anyhow!("`{line}` has not ended after {COMMAND_MAX:?}"))?;
    let done = done.with_context(|| format!("run `{line}`"))?;
    Ok(Said {
        line,
        code: done.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    })
}

fn line(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Looks until the condition holds; fails with what was seen at last. Returns what was found.
pub(crate) async fn until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        let seen = match look().await {
            Ok(found) => return Ok(found),
            Err(seen) => seen,
        };
        if Instant::now() >= end {
            bail!("{what}: not within {within:?}; seen at last: {seen:#}");
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Looks for a while and fails as soon as the condition does not hold: how something that must not happen is seen not to happen.
pub(crate) async fn throughout(what: &str, span: Duration, mut look: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        look().await.with_context(|| format!("{what}, which must hold for {span:?}"))?;
        sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

/// `Err` that names both where they differ.
pub(crate) fn same<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, found: &T, wanted: &T) -> Result<()> {
    ensure!(found == wanted, "{what} is {found:?}, not {wanted:?}");
    Ok(())
}
