//! Runs programs to their end and waits for conditions. Never leaves a program running: see `process` for those.

use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(150);

/// Runs a program and returns what it wrote to its standard output.
pub(crate) async fn run<S: AsRef<str>>(words: &[S]) -> Result<String> {
    feed(words, "").await
}

/// The same with something on its standard input.
pub(crate) async fn feed<S: AsRef<str>>(words: &[S], input: &str) -> Result<String> {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    finish(command, &words.join(" "), input).await
}

/// Runs a prepared command to its end.
pub(crate) async fn finish(mut command: Command, name: &str, input: &str) -> Result<String> {
    let mut child = command.spawn().map_err(Error::io(format!("run `{name}`")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early closes its input; its exit status tells the story.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(Error::io(format!("run `{name}`")))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let text = format!("{}{}{}", said.trim(), if said.trim().is_empty() { "" } else { "; " }, complaint.trim());
    let start = text.len().saturating_sub(2000);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(start);
    Err(Error::Command {
        command: name.to_owned(),
        status: output.status.to_string(),
        output: text[start..].to_owned(),
    })
}

/// Looks at a condition until it holds (`Ok`) or the deadline has passed; `Err` says what was seen.
pub(crate) async fn wait<T, F, Fut>(what: &str, deadline: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    let mut last = "nothing".to_owned();
    loop {
        match tokio::time::timeout_at(end, look()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(seen)) => last = seen,
            Err(_) => {}
        }
        if Instant::now() >= end {
            return Err(Error::Late { what: what.to_owned(), seconds: deadline.as_secs(), last });
        }
        tokio::time::sleep(POLL).await;
    }
}
