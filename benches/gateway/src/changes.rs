//! From a change in the hub to the first answer by it, while changes of all kinds go on.
//!
//! Every change is of a route (a path that leads to another Service than before, seen by what answers), of endpoints, or of the certificate.
//! Only routes are timed: from the acknowledged write to the answer. Beside them somebody asks all the time, and nothing may fail.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use crate::hub::client;
use crate::objects::{apply, route, secret, slice};
use crate::{Result, say};

/// Between two looks at an answer.
const LOOK: Duration = Duration::from_micros(500);
const SEEN_MAX: Duration = Duration::from_secs(5);

/// Makes `count` changes at `rate` a second, and says percentiles of the times until routes are seen.
pub(crate) async fn run(hub: &str, at: SocketAddr, count: usize, rate: f64) -> Result<()> {
    let client = client(hub)?;
    let failed = Arc::new(AtomicUsize::new(0));
    let calm = tokio::spawn(calm(at, Arc::clone(&failed)));
    let folder = std::env::var("ATOLL_BENCH_FOLDER").unwrap_or_else(|_| ".".to_owned());
    let (began, every) = (Instant::now(), Duration::from_secs_f64(1.0 / rate));
    let mut timed = tokio::task::JoinSet::new();
    for n in 0..count {
        sleep_until(began + every * u32::try_from(n)?).await;
        let client = client.clone();
        let folder = folder.clone();
        match n % 3 {
            0 => drop(timed.spawn(one(client, at, n))),
            1 => drop(tokio::spawn(async move {
                let addresses: Vec<_> = (0..=n % 3).map(|last| [127, 0, 77, last as u8 + 1].into()).collect();
                apply(client, slice("spare", &addresses, 9)).await
            })),
            _ => drop(tokio::spawn(async move { apply(client, secret(Path::new(&folder))?).await })),
        }
    }
    let mut times = Vec::new();
    while let Some(ended) = timed.join_next().await {
        times.push(ended??);
    }
    calm.abort();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)].as_secs_f64() * 1000.0;
    say("changes", count)?;
    say("failed", failed.load(Ordering::Relaxed))?;
    say("p50_ms", format!("{:.1}", at(0.5)))?;
    say("p99_ms", format!("{:.1}", at(0.99)))?;
    say("max_ms", format!("{:.1}", at(1.0)))
}

/// A new route: how long until it answers after its write was acknowledged.
async fn one(client: kube::Client, at: SocketAddr, n: usize) -> Result<Duration> {
    let host = format!("new{n}.test");
    apply(client, route(&format!("new{n}"), &host, "/", "web")).await?;
    let written = Instant::now();
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    while written.elapsed() < SEEN_MAX {
        if status(&mut stream, &host).await? == 200 {
            return Ok(written.elapsed());
        }
        sleep(LOOK).await;
    }
    Err(format!("{host} was never served").into())
}

/// Asks an old route all the time.
async fn calm(at: SocketAddr, failed: Arc<AtomicUsize>) -> Result<()> {
    let mut stream = TcpStream::connect(at).await?;
    loop {
        if status(&mut stream, "h0.test").await? != 200 {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(2)).await;
    }
}

async fn status(stream: &mut TcpStream, host: &str) -> Result<u16> {
    stream.write_all(format!("GET /128 HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await?;
    let (mut got, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut part).await?;
        if n == 0 {
            return Err("the connection ended".into());
        }
        got.extend_from_slice(&part[..n]);
        let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&got[..end])?.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no length")?;
        if got.len() >= end + 4 + length.trim().parse::<usize>()? {
            return Ok(head.get(9..12).ok_or("no status")?.parse()?);
        }
    }
}
