//! Asks the DNS server over UDP, as anybody would, until an answer shows an address or shows it no more.

use std::net::SocketAddr;

use tokio::net::UdpSocket;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::Result;

/// Between two questions.
const EVERY: Duration = Duration::from_millis(1);
const ANSWER_MAX: Duration = Duration::from_millis(200);

/// Asks for `name` until the answer does (or does not) hold `address`; says when that was.
pub(crate) async fn shown(
    at: SocketAddr,
    name: &str,
    address: [u8; 4],
    there: bool,
    within: Duration,
) -> Result<Instant> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
    socket.connect(at).await?;
    let until = Instant::now() + within;
    let (question, mut reply) = (question(name), [0; 1232]);
    loop {
        socket.send(&question).await?;
        if let Ok(length) = timeout(ANSWER_MAX, socket.recv(&mut reply)).await {
            let answer = &reply[..length?];
            let is_answer = answer.get(3).is_some_and(|b| b & 0x0f == 0);
            let [a, b, c, d] = address;
            let holds = answer.windows(6).any(|w| w == [0, 4, a, b, c, d]);
            if is_answer && holds == there {
                return Ok(Instant::now());
            }
        }
        if Instant::now() > until {
            return Err(format!("{name}: {address:?} there={there} was never seen").into());
        }
        sleep(EVERY).await;
    }
}

fn question(name: &str) -> Vec<u8> {
    let mut octets = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        octets.push(label.len() as u8);
        octets.extend_from_slice(label.as_bytes());
    }
    octets.extend_from_slice(&[0, 0, 1, 0, 1]);
    octets
}
