//! `curl`: one request, or one after another in the background while something breaks.
//! In: where the gateway is, host and path. Out: the echo that came back, and what became of every request.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::said::run;
use crate::world::text;

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// The status; 0 where there was none.
    pub(crate) code: u16,
    /// The echo's words, where it was an echo that answered.
    pub(crate) echo: Value,
    body: String,
}

impl Reply {
    /// That it has this status.
    pub(crate) fn status(&self, wanted: u16) -> Result<()> {
        ensure!(self.code == wanted, "the status is {}, not {wanted}: {}", self.code, self.body);
        Ok(())
    }

    /// The member that answered.
    pub(crate) fn cluster(&self) -> Result<String> {
        self.status(200)?;
        let cluster = text(&self.echo, "/cluster");
        ensure!(!cluster.is_empty(), "no echo: {}", self.body);
        Ok(cluster.to_owned())
    }
}

/// `curl http://HOST/PATH` at the gateway.
pub(crate) async fn get(at: SocketAddr, host: &str, path: &str) -> Result<Reply> {
    curl("http", at, host, path, &[]).await
}

/// `curl https://HOST/PATH` at the gateway, with the certificate checked.
pub(crate) async fn get_tls(at: SocketAddr, host: &str, path: &str, ca: &Path) -> Result<Reply> {
    curl("https", at, host, path, &["--cacert", &ca.display().to_string()]).await
}

async fn curl(scheme: &str, at: SocketAddr, host: &str, path: &str, more: &[&str]) -> Result<Reply> {
    let mut command = Command::new("curl");
    let resolve = format!("{host}:{}:{}", at.port(), at.ip());
    let url = format!("{scheme}://{host}:{}{path}", at.port());
    command.args(["--silent", "--show-error", "--max-time", "5", "--noproxy", "*", "--resolve", &resolve]);
    command.args(["--write-out", "\n%{http_code}", &url]).args(more);
    let said = run(command).await?;
    let (body, code) = said.out.rsplit_once('\n').with_context(|| format!("curl said {said:?}"))?;
    let code = code.trim().parse().unwrap_or(0);
    let body = if code == 0 { said.err.trim().to_owned() } else { body.to_owned() };
    Ok(Reply { code, echo: serde_json::from_str(&body).unwrap_or_default(), body })
}

/// What became of one request.
#[derive(Debug, Clone)]
pub(crate) struct Shot {
    /// When it was begun.
    pub(crate) at: Instant,
    /// Who answered, or what went wrong.
    pub(crate) result: Result<String, String>,
}

/// Requests, one after another, each 50 ms after the one before has ended.
#[derive(Debug)]
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    shots: watch::Receiver<Vec<Shot>>,
    task: JoinHandle<()>,
}

impl Load {
    /// Begins.
    pub(crate) fn begin(at: SocketAddr, host: &'static str, path: &'static str) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let (out, shots) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            while !*stopped.borrow_and_update() {
                let began = Instant::now();
                let result = match get(at, host, path).await {
                    Ok(reply) => reply.cluster(),
                    Err(error) => Err(error),
                };
                let result = result.map_err(|error| format!("{error:#}"));
                out.send_modify(|shots| shots.push(Shot { at: began, result }));
                sleep(Duration::from_millis(50)).await;
            }
        });
        Self { stop, shots, task }
    }

    /// What became of the requests so far.
    pub(crate) fn shots(&self) -> Vec<Shot> {
        self.shots.borrow().clone()
    }

    /// Those begun since then that failed.
    pub(crate) fn failed_since(&self, since: Instant) -> Vec<Shot> {
        self.shots().into_iter().filter(|shot| shot.at >= since && shot.result.is_err()).collect()
    }

    /// Ends it.
    pub(crate) async fn end(self) -> Result<Vec<Shot>> {
        self.stop.send_replace(true);
        self.task.await.context("the load ended badly")?;
        Ok(self.shots.borrow().clone())
    }
}
