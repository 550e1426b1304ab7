//! A running `atoll up` for tests: its own home, free ports, ended by SIGINT.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Generous: machines that run all tests at once are slow.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Every port is whatever is free.
pub(crate) const FREE: &str = "listen: {api: '127.0.0.1:0', hub: '127.0.0.1:0', dns: '127.0.0.1:0', http: '127.0.0.1:0', \
    https: '127.0.0.1:0', console: '127.0.0.1:0', dnsRelay: '127.0.0.1:0', gatewayRelay: '127.0.0.1:0', admin: '127.0.0.1:0'}\n";

/// A home for one or several runs.
pub(crate) struct Place {
    dir: TempDir,
    env: Vec<(&'static str, String)>,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        Self::within(Vec::new())
    }

    /// What is started there has this in its environment, too.
    pub(crate) fn within(env: Vec<(&'static str, String)>) -> Result<Self> {
        Ok(Self { dir: tempfile::Builder::new().prefix("atoll-up-").tempdir()?, env })
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        std::fs::write(self.at(name), content)?;
        Ok(self.at(name))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.args(words).env("ATOLL_HOME", self.home()).env_remove("KUBECONFIG").env_remove("ATOLL_LOG");
        command.envs(self.env.iter().map(|(key, value)| (*key, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end: its exit code and what it said.
    pub(crate) async fn ended(&self, words: &[&str]) -> Result<Ended> {
        end(self.command(words)).await
    }

    /// The same with at most so many blocks of 512 bytes in any file, as on a disk that is full.
    pub(crate) async fn ended_within(&self, blocks: u32, words: &[&str]) -> Result<Ended> {
        let mut command = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_atoll")]).args(words).env("ATOLL_HOME", self.home());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        end(command).await
    }

    /// Starts `atoll up -o json` with these words and waits until it is ready.
    pub(crate) async fn up(&self, words: &[&str]) -> Result<Up> {
        let mut all = vec!["up", "-o", "json"];
        all.extend(words);
        let mut child = self.command(&all).spawn()?;
        let mut out = BufReader::new(child.stdout.take().context("its stdout")?);
        let mut line = String::new();
        timeout(LONG, out.read_line(&mut line)).await.context("not ready in time")??;
        if line.is_empty() {
            let mut said = String::new();
            child.stderr.take().context("its stderr")?.read_to_string(&mut said).await?;
            anyhow::bail!("ended before it was ready: {said}");
        }
        let ready: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        ensure!(ready["ready"] == true, "{line}");
        Ok(Up { child, ready })
    }
}

async fn end(mut command: Command) -> Result<Ended> {
    let Output { status, stdout, stderr } = timeout(LONG, command.output()).await.context("did not end in time")??;
    Ok(Ended {
        code: status.code(),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// It ended with this code and said all of these words.
    pub(crate) fn says(&self, case: &str, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{case}: {self:?}");
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "{case}: no `{word}` in {self:?}");
        }
        assert!(!self.err.contains("panicked"), "{case}: {self:?}");
    }
}

/// A running one.
pub(crate) struct Up {
    child: Child,
    pub(crate) ready: Value,
}

impl Up {
    pub(crate) fn text(&self, field: &str) -> &str {
        self.ready[field].as_str().unwrap_or_default()
    }

    fn address(&self, field: &str) -> Result<SocketAddr> {
        self.text(field).parse().with_context(|| format!("{field}: {}", self.ready))
    }

    /// Ctrl-C, and how it ended.
    pub(crate) async fn interrupt(mut self) -> Result<Option<i32>> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().context("it has ended already")?.cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        Ok(timeout(LONG, self.child.wait()).await.context("did not end on Ctrl-C")??.code())
    }

    /// Asks its DNS server by UDP.
    pub(crate) async fn dig(&self, name: &str) -> Result<(ResponseCode, Vec<String>)> {
        ask(self.address("dns")?, name, RecordType::A).await
    }

    /// A request to its gateway; the answer's body.
    pub(crate) async fn curl(&self, host: &str) -> Result<Value> {
        let work = async {
            let mut stream = TcpStream::connect(self.address("http")?).await?;
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            let (head, body) = text.split_once("\r\n\r\n").context("no body")?;
            ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
            let json = &body[body.find('{').context("no JSON")?..=body.rfind('}').context("no JSON")?];
            Ok(serde_json::from_str(json)?)
        };
        timeout(Duration::from_secs(10), work).await.context("no answer in time")?
    }
}

/// A client of whoever a context names.
pub(crate) async fn client(kubeconfig: &Path, context: &str) -> Result<kube::Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let options = kube::config::KubeConfigOptions { context: Some(context.to_owned()), ..Default::default() };
    Ok(kube::Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?)?)
}

/// Asks again until it holds; says what it last was if that takes too long.
pub(crate) async fn until<T>(what: &str, ask: impl AsyncFn() -> Result<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        match ask().await {
            Ok(done) => return done,
            Err(last) if Instant::now() > end => panic!("{what}: {last:#}"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What a DNS server says by UDP: its code, and the data in order.
pub(crate) async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Result<(ResponseCode, Vec<String>)> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name)?, kind));
    socket.send_to(&query.to_vec()?, server).await?;
    let mut packet = [0; 4096];
    let (len, _) = timeout(Duration::from_secs(5), socket.recv_from(&mut packet)).await.context("no answer")??;
    let answer = Message::from_vec(&packet[..len])?;
    let mut data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    data.sort();
    Ok((answer.metadata.response_code, data))
}
