//! The generator: so many connections, each with one request at a time, on one thread.
//!
//! Closed loop: as fast as it is answered. Open loop: at a rate, and times count from when a request was due, so that a server that stands
//! still is seen to. Answers are checked: status, and that they have the length that they say.

use std::any::Any;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;

use crate::{Result, multiplexed, say, secure};

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Http,
    Tls,
    /// A TLS connection for each.
    New,
    H2,
    Grpc,
}

impl FromStr for Way {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        Ok(match word {
            "http" => Self::Http,
            "tls" => Self::Tls,
            "new" => Self::New,
            "h2" => Self::H2,
            "grpc" => Self::Grpc,
            other => return Err(format!("`{other}` is no way")),
        })
    }
}

/// What is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) way: Way,
    pub(crate) at: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) connections: usize,
    pub(crate) seconds: f64,
    /// Requests a second; 0: as many as are answered.
    pub(crate) rate: f64,
    pub(crate) folder: PathBuf,
}

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Microseconds of each answer.
    pub(crate) times: Vec<u32>,
    pub(crate) failed: usize,
}

impl Seen {
    pub(crate) fn took(&mut self, time: Duration) {
        self.times.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.failed += other.failed;
    }

    fn say(mut self, seconds: f64) -> Result<()> {
        self.times.sort_unstable();
        let at = |share: f64| {
            let place = (self.times.len() as f64 * share) as usize;
            self.times.get(place.min(self.times.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        say("answered", self.times.len())?;
        say("failed", self.failed)?;
        say("rate", (self.times.len() as f64 / seconds).round())?;
        say("p50_us", at(0.5))?;
        say("p99_us", at(0.99))?;
        say("p999_us", at(0.999))
    }
}

/// When the requests of one connection are due.
pub(crate) struct Due {
    every: Option<Duration>,
    next: Instant,
    until: Instant,
}

impl Due {
    /// Waits for the next; from when it counts, or nothing at the end.
    pub(crate) async fn next(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let begins = match self.every {
            None => now,
            Some(every) => {
                let due = self.next;
                self.next += every;
                if due > now {
                    sleep_until(due).await;
                }
                due
            }
        };
        (begins < self.until).then_some(begins)
    }
}

impl Load {
    /// Sends, and says what became of it.
    pub(crate) async fn run(self) -> Result<()> {
        let started = Instant::now() + Duration::from_millis(50);
        let until = started + Duration::from_secs_f64(self.seconds);
        let mut tasks = JoinSet::new();
        for n in 0..self.connections {
            let every = (self.rate > 0.0).then(|| Duration::from_secs_f64(self.connections as f64 / self.rate));
            let shift = every.unwrap_or_default().mul_f64(n as f64 / self.connections as f64);
            let due = Due { every, next: started + shift, until };
            let load = self.clone();
            tasks.spawn(async move {
                match load.way {
                    Way::H2 | Way::Grpc => multiplexed::ask(&load, due).await,
                    Way::Http | Way::Tls | Way::New => load.connection(due).await,
                }
            });
        }
        let mut seen = Seen::default();
        while let Some(ended) = tasks.join_next().await {
            seen.add(ended??);
        }
        seen.say(self.seconds)
    }

    async fn connection(&self, mut due: Due) -> Result<Seen> {
        let mut seen = Seen::default();
        let request = request(&self.host, &self.path);
        let tls = TlsConnector::from(match self.way {
            Way::Http => Arc::new(
                rustls::ClientConfig::builder()
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth(),
            ),
            _ => secure::client(&self.folder, false)?,
        });
        let mut stream: Option<Box<dyn Pipe>> = None;
        let mut buffer = vec![0; 256 * 1024];
        while let Some(began) = due.next().await {
            let mut open = match stream.take() {
                Some(open) => open,
                None => match self.open(&tls).await {
                    Ok(open) => open,
                    Err(_) => {
                        seen.failed += 1;
                        continue;
                    }
                },
            };
            match ask(&mut open, request.as_bytes(), &mut buffer).await {
                Ok(()) => {
                    seen.took(began.elapsed());
                    stream = Some(open).filter(|_| self.way != Way::New);
                }
                Err(_) => seen.failed += 1,
            }
        }
        Ok(seen)
    }

    /// Connections of which each asked once.
    async fn idle(&self) -> Result<Vec<Box<dyn Any>>> {
        let tls = TlsConnector::from(secure::client(&self.folder, false)?);
        let (mut kept, mut buffer): (Vec<Box<dyn Any>>, _) = (Vec::new(), vec![0; 64 * 1024]);
        let request = request(&self.host, &self.path);
        for _ in 0..self.connections {
            let mut stream = self.open(&tls).await?;
            ask(&mut stream, request.as_bytes(), &mut buffer).await?;
            kept.push(Box::new(stream));
        }
        Ok(kept)
    }

    async fn open(&self, tls: &TlsConnector) -> Result<Box<dyn Pipe>> {
        let stream = TcpStream::connect(self.at).await?;
        stream.set_nodelay(true)?;
        if self.way == Way::Http {
            return Ok(Box::new(stream));
        }
        Ok(Box::new(tls.connect(ServerName::try_from(self.host.clone())?, stream).await?))
    }
}

/// A stream of either kind.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

fn request(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: atoll-bench\r\naccept: */*\r\n\r\n")
}

/// Sends a request and reads its answer to the end.
async fn ask(stream: &mut Box<dyn Pipe>, request: &[u8], buffer: &mut [u8]) -> Result<()> {
    stream.write_all(request).await?;
    let mut filled = 0;
    let (head, length) = loop {
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            return Err("the connection ended".into());
        }
        filled += n;
        if let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
            if !head.starts_with("http/1.1 200") {
                return Err(head.into());
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no length")?;
            break (end + 4, length.trim().parse::<usize>()?);
        }
    };
    let mut left = (head + length).checked_sub(filled).ok_or("more than was asked for")?;
    while left > 0 {
        let n = stream.read(buffer).await?;
        if n == 0 {
            return Err("the connection ended".into());
        }
        left = left.checked_sub(n).ok_or("more than was asked for")?;
    }
    Ok(())
}

/// Opens connections that ask once and stay, and says what each costs the process `pid` of memory.
pub(crate) async fn idle(way: Way, at: SocketAddr, host: &str, count: usize, pid: &str, folder: &Path) -> Result<()> {
    let load = Load {
        way,
        at,
        host: host.to_owned(),
        path: "/128".to_owned(),
        connections: count,
        seconds: 0.0,
        rate: 0.0,
        folder: folder.to_owned(),
    };
    let before = memory(pid)?;
    let kept: Vec<Box<dyn Any>> = match way {
        Way::H2 | Way::Grpc => multiplexed::idle(&load).await?,
        Way::Http | Way::Tls | Way::New => load.idle().await?,
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = memory(pid)?;
    say("connections", kept.len())?;
    say("octets_each", (after.saturating_sub(before)) * 1024 / count.max(1))
}

/// Resident memory of a process and its children, in KiB.
fn memory(pids: &str) -> Result<usize> {
    let mut sum = 0;
    for pid in pids.split(',') {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        sum += line.trim().trim_end_matches(" kB").parse::<usize>()?;
    }
    Ok(sum)
}
