//! The query log: one line of JSON for each query, in a file, or a message of the process.
//!
//! In: what was seen. Out: lines. A file that was moved away (logrotate) is made anew within a second. A disk that does not keep up costs
//! lines, never answers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atoll_dns::Seen;
use hickory_proto::op::Message;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Writes until `shutdown`.
pub(super) async fn write(mut queued: Receiver<Seen>, path: Option<PathBuf>, shutdown: CancellationToken) {
    let mut file = None;
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = tick.tick(), if path.is_some() => file = look(file, path.as_deref()).await,
            seen = queued.recv() => {
                let Some(seen) = seen else { break };
                let line = line(&seen);
                match (&mut file, &path) {
                    (_, None) => tracing::info!(target: "atoll::queries", query = %line),
                    (Some(open), Some(_)) => {
                        let last = queued.is_empty();
                        if put(open, &line, last).await.is_err() {
                            // Opened anew at the next look, which says why it can't be.
                            file = None;
                        }
                    }
                    (None, Some(_)) => {}
                }
            }
        }
    }
    if let Some(mut file) = file {
        // Nobody is left to be told.
        let _ = file.flush().await;
    }
}

async fn put(file: &mut BufWriter<File>, line: &Value, last: bool) -> std::io::Result<()> {
    file.write_all(format!("{line}\n").as_bytes()).await?;
    if last { file.flush().await } else { Ok(()) }
}

/// The open file, as long as it is the one that the path names.
async fn look(file: Option<BufWriter<File>>, path: Option<&Path>) -> Option<BufWriter<File>> {
    let path = path?;
    if file.is_some() && tokio::fs::try_exists(path).await.unwrap_or(false) {
        return file;
    }
    if let Some(mut old) = file {
        let _ = old.flush().await;
    }
    match OpenOptions::new().create(true).append(true).open(path).await {
        Ok(opened) => Some(BufWriter::new(opened)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the query log can't be written, queries go on");
            None
        }
    }
}

fn line(seen: &Seen) -> Value {
    let at = Timestamp::now() - SignedDuration::try_from(seen.answered.elapsed()).unwrap_or_default();
    let us = u64::try_from(seen.took.as_micros()).unwrap_or(u64::MAX);
    let mut line = json!({
        "time": at.to_string(), "transport": seen.transport, "client": seen.from.to_string(), "microseconds": us,
        "bytes": seen.reply.len(),
    });
    // Ours to read: but for a header alone, it can be.
    let Ok(reply) = Message::from_vec(&seen.reply) else { return line };
    if let Some(asked) = reply.queries.first() {
        line["name"] = asked.name.to_string().into();
        line["type"] = asked.query_type.to_string().into();
    }
    line["rcode"] = u16::from(reply.metadata.response_code).into();
    line["answers"] = reply.answers.len().into();
    line["truncated"] = reply.metadata.truncation.into();
    line
}
