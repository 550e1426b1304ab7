//! Clients that come at a rate, whatever becomes of those before them: each sends a request when it is due, on a connection that is free.
//!
//! Nine of ten are GETs, the others POSTs that say their number. In: where, how many a second. Out: what became of them; times count from when a
//! request was due. A connection that ended while nobody used it is not one that failed: clients look before they send.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Result;

/// Who has no 2xx by then is not served.
const WITHIN: Duration = Duration::from_secs(3);
/// A POST may wait for longer before it is given up.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// One of so many is a POST.
const POST_EVERY: usize = 10;
/// Connections kept while nobody uses them.
const KEPT_MAX: usize = 1024;

/// What became of requests.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    asked: usize,
    served: usize,
    slowest: Duration,
    posts: usize,
    posts_served: usize,
    /// What those got that were not served, some of them.
    others: Vec<String>,
}

impl Seen {
    /// Takes in what another saw.
    pub(crate) fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.served += other.served;
        self.slowest = self.slowest.max(other.slowest);
        self.posts += other.posts;
        self.posts_served += other.posts_served;
        self.others.extend(other.others);
        self.others.truncate(10);
    }
}

impl Seen {
    /// How many were not served, POSTs among them.
    pub(crate) fn failed(&self) -> usize {
        self.asked - self.served + self.posts - self.posts_served
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = self.served as f64 * 100.0 / self.asked.max(1) as f64;
        write!(f, "idempotent {} of {} within 3 s ({share:.4} %)", self.served, self.asked)?;
        write!(f, ", slowest {} ms, POSTs {} of {}", self.slowest.as_millis(), self.posts_served, self.posts)?;
        if self.others.is_empty() { Ok(()) } else { write!(f, ", others {:?}", self.others) }
    }
}

struct Shared {
    at: SocketAddr,
    seen: Mutex<Seen>,
    kept: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
    /// Requests under way are those whose tasks hold this.
    working: Arc<()>,
}

/// The clients.
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    coming: JoinHandle<()>,
}

impl Crowd {
    /// They come from now on.
    pub(crate) fn start(at: SocketAddr, rate: f64) -> Self {
        let shared = Arc::new(Shared {
            at,
            seen: Mutex::default(),
            kept: Mutex::default(),
            stop: AtomicBool::new(false),
            working: Arc::default(),
        });
        let theirs = Arc::clone(&shared);
        let coming = tokio::spawn(async move {
            let began = Instant::now();
            for n in 0.. {
                let due = began + Duration::from_secs_f64(n as f64 / rate);
                sleep_until(due).await;
                if theirs.stop.load(Ordering::Relaxed) {
                    return;
                }
                tokio::spawn(one(Arc::clone(&theirs), n, due, Arc::clone(&theirs.working)));
            }
        });
        Self { shared, coming }
    }

    /// Waits until requests are served at all.
    pub(crate) async fn until_served(&self) -> Result<()> {
        for _ in 0..100 {
            self.take();
            sleep(Duration::from_millis(100)).await;
            if self.take().served > 0 {
                return Ok(());
            }
        }
        Err("the gateway serves nobody".into())
    }

    /// What was seen since that was asked last.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, once what is due by now had its time.
    pub(crate) async fn settled(&self) -> Seen {
        sleep(WITHIN).await;
        self.take()
    }

    /// Nobody comes any more; waits for those who are under way.
    pub(crate) async fn stop(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.coming.await;
        while Arc::strong_count(&self.shared.working) > 1 {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn one(shared: Arc<Shared>, n: usize, due: Instant, _working: Arc<()>) {
    let is_post = n.is_multiple_of(POST_EVERY);
    let request = if is_post {
        let body = format!("post-{n}");
        format!("POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    } else {
        "GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n".to_owned()
    };
    let limit = due + if is_post { GIVEN_UP } else { WITHIN };
    let left = limit.saturating_duration_since(Instant::now());
    let got = timeout(left, ask(&shared, &request)).await;
    let served = matches!(got, Ok(Ok(200..=299)));
    let took = due.elapsed();
    let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if is_post {
        seen.posts += 1;
        seen.posts_served += usize::from(served);
    } else {
        seen.asked += 1;
        seen.served += usize::from(served);
        seen.slowest = seen.slowest.max(took);
        if !served && seen.others.len() < 10 {
            seen.others.push(match got {
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "nothing".to_owned(),
            });
        }
    }
}

async fn ask(shared: &Shared, request: &str) -> Result<u16> {
    let mut stream = loop {
        let kept = shared.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept {
            // Nothing to read, not even its end.
            Some(kept) if matches!(kept.try_read(&mut [0; 1]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock) => {
                break kept;
            }
            Some(_) => {}
            None => {
                let fresh = TcpStream::connect(shared.at).await?;
                fresh.set_nodelay(true)?;
                break fresh;
            }
        }
    };
    stream.write_all(request.as_bytes()).await?;
    let (mut got, mut part) = (Vec::new(), [0; 2048]);
    loop {
        let n = stream.read(&mut part).await?;
        if n == 0 {
            return Err("the gateway ended the connection".into());
        }
        got.extend_from_slice(&part[..n]);
        let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&got[..end])?.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no length")?;
        if got.len() >= end + 4 + length.trim().parse::<usize>()? {
            let status = head.get(9..12).ok_or("no status")?.parse()?;
            let mut kept = shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if !head.contains("connection: close") && kept.len() < KEPT_MAX {
                kept.push(stream);
            }
            return Ok(status);
        }
    }
}
