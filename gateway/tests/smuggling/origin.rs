//! An endpoint that keeps every octet of what it gets, and answers what it reads with what it read.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::reading::{Read, Request, read};

/// What it got since somebody asked.
#[derive(Debug, Default, Clone)]
pub(crate) struct Got {
    /// Whole requests, with their octets.
    pub(crate) requests: Vec<(Request, Vec<u8>)>,
    /// What nobody should have written: why, and the octets.
    pub(crate) bad: Vec<(&'static str, Vec<u8>)>,
    /// Octets of requests that broke off.
    pub(crate) begun: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Kept {
    got: Got,
    /// Connections that are in the middle of a request.
    open: usize,
}

/// The endpoint.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

impl Origin {
    /// Listens for as long as the runtime lasts.
    pub(crate) async fn start(at: &str) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let (address, kept) = (listener.local_addr().unwrap(), Arc::<Mutex<Kept>>::default());
        let keeps = Arc::clone(&kept);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, Arc::clone(&keeps)));
            }
        });
        Self { address, kept }
    }

    /// What it got since the last time, once no connection is in the middle of a request any more.
    pub(crate) async fn got(&self) -> Got {
        for _ in 0..2000 {
            {
                let mut kept = self.kept.lock().unwrap();
                if kept.open == 0 {
                    return std::mem::take(&mut kept.got);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut got = std::mem::take(&mut self.kept.lock().unwrap().got);
        got.bad.push(("a request stays in the middle for 10 s", Vec::new()));
        got
    }
}

async fn talk(mut stream: TcpStream, kept: Arc<Mutex<Kept>>) {
    let (mut octets, mut is_open) = (Vec::new(), false);
    loop {
        let read = stream.read_buf(&mut octets).await.unwrap_or(0);
        let answers = keep(&mut octets, &kept);
        let ends = read == 0 || answers.is_none();
        is_open = settle(&kept, &mut octets, is_open, ends);
        let Some(answers) = answers.filter(|_| !ends) else { return };
        let _ = stream.write_all(&answers).await;
    }
}

/// Whether the connection is in the middle of a request now.
fn settle(kept: &Mutex<Kept>, octets: &mut Vec<u8>, was_open: bool, ends: bool) -> bool {
    let mut kept = kept.lock().unwrap();
    if ends && !octets.is_empty() {
        kept.got.begun.push(std::mem::take(octets));
    }
    let is_open = !octets.is_empty();
    kept.open = kept.open + usize::from(is_open) - usize::from(was_open);
    is_open
}

/// Keeps the requests that are whole and returns the answers to them; nothing where the octets are none.
fn keep(octets: &mut Vec<u8>, kept: &Mutex<Kept>) -> Option<Vec<u8>> {
    let mut answers = Vec::new();
    while !octets.is_empty() {
        match read(octets) {
            Read::Whole(request, len) => {
                let said = format!("{} {}", request.method, request.target);
                answers
                    .extend_from_slice(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", said.len()).as_bytes());
                if request.method != "HEAD" {
                    answers.extend_from_slice(said.as_bytes());
                }
                kept.lock().unwrap().got.requests.push((*request, octets.drain(..len).collect()));
            }
            Read::More => break,
            Read::Bad(why) => {
                kept.lock().unwrap().got.bad.push((why, std::mem::take(octets)));
                return None;
            }
        }
    }
    Some(answers)
}
