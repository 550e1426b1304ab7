//! `atoll demo break|heal`: a socket in the run directory, one line there and one back.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::federation::Federation;
use super::rundir::{RunDir, sockets};
use crate::error::Exit;

/// A request longer than this is none.
const LINE_LEN_MAX: u64 = 200;
const ASK_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// What `atoll demo` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Cuts a member off, or stops a part.
    Break,
    /// Mends it.
    Heal,
}

/// Opens the socket.
pub(super) fn listen(run_dir: &RunDir) -> anyhow::Result<UnixListener> {
    let path = run_dir.socket();
    // Of a data directory whose `atoll up` was killed; the store's lock says that no other one lives.
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).with_context(|| format!("open {}", path.display()))
}

/// Answers for ever, one after the other.
pub(super) async fn serve(listener: UnixListener, federation: &mut Federation) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if let Err(error) = answer(stream, federation).await {
            tracing::debug!(%error, "control connection");
        }
    }
}

async fn answer(stream: UnixStream, federation: &mut Federation) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    timeout(ASK_MAX, BufReader::new(read.take(LINE_LEN_MAX)).read_line(&mut line)).await??;
    let done = match line.trim().split_once(' ') {
        Some(("break", what)) => federation.set_broken(Action::Break, what).await,
        Some(("heal", what)) => federation.set_broken(Action::Heal, what).await,
        _ => Err(anyhow::anyhow!("say `break WHAT` or `heal WHAT`")),
    };
    let said = match done {
        Ok(done) => format!("ok {done}\n"),
        Err(error) => format!("error {}\n", crate::error::line(&error)),
    };
    Ok(timeout(ASK_MAX, write.write_all(said.as_bytes())).await??)
}

/// Asks the running `atoll up` below `home` (or of exactly this run directory) to break or heal a member (by name), `hub`, `dns` or
/// `gateway`. Returns what was done, for people.
///
/// # Errors
/// [`Exit::Unreachable`] when none runs, [`Exit::Usage`] when several do, else what it says.
pub(crate) async fn control(home: &Path, action: Action, what: &str) -> anyhow::Result<String> {
    let mut open = Vec::new();
    for socket in sockets(home) {
        if let Ok(stream) = UnixStream::connect(&socket).await {
            open.push(stream);
        }
    }
    let Some(stream) = open.pop() else {
        return Err(Exit::Unreachable(format!("no `atoll up` runs below {}: start one", home.display())).into());
    };
    if !open.is_empty() {
        let why =
            format!("several `atoll up` run below {}: set ATOLL_HOME to the run directory of one", home.display());
        return Err(Exit::Usage(why).into());
    }
    let verb = match action {
        Action::Break => "break",
        Action::Heal => "heal",
    };
    let (read, mut write) = stream.into_split();
    write.write_all(format!("{verb} {what}\n").as_bytes()).await?;
    let mut said = String::new();
    let mut read = BufReader::new(read.take(64 * 1024));
    let answer = timeout(ANSWER_MAX, read.read_line(&mut said)).await.context("`atoll up` did not answer in time")?;
    answer.context("read the answer of `atoll up`")?;
    match said.trim_end().split_once(' ') {
        Some(("ok", done)) => Ok(done.to_owned()),
        Some(("error", why)) => Err(Exit::Failed(why.to_owned()).into()),
        _ => Err(Exit::Unreachable("`atoll up` ended before it answered".into()).into()),
    }
}
