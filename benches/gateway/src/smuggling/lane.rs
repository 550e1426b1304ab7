//! One input through all proxies at once, each with a port and an endpoint that nobody else uses meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::judge::{Verdict, judge, sent};
use super::origin::Origin;

/// After so long a silence nothing more is expected of a proxy that takes half a connection's end for its whole.
const SILENCE: Duration = Duration::from_millis(40);
/// And of others.
const PATIENCE: Duration = Duration::from_secs(2);

/// A proxy as one lane sees it.
pub(super) struct Way {
    pub(super) proxy: SocketAddr,
    pub(super) origin: Origin,
    /// Whether it goes on with what it has when the client says that nothing follows.
    pub(super) half_closes: bool,
}

/// The ways of a lane, in the order of the proxies.
pub(super) struct Lane(pub(super) [Way; 3]);

impl Lane {
    /// Waits for what is late, and forgets it.
    pub(super) async fn rest(&self) {
        tokio::time::sleep(2 * SILENCE).await;
        for way in &self.0 {
            way.origin.got().await;
        }
    }

    /// Says `input` to all.
    pub(super) async fn play(&self, input: &[u8]) -> [Verdict; 3] {
        let sent = sent(input);
        let one = async |at: usize| {
            let way = &self.0[at];
            way.say(input, sent.len()).await;
            judge(&sent, &way.origin.got().await, at == 0)
        };
        let (atoll, nginx, haproxy) = tokio::join!(one(0), one(1), one(2));
        [atoll, nginx, haproxy]
    }
}

impl Way {
    async fn say(&self, input: &[u8], answers: usize) {
        let Ok(mut stream) = TcpStream::connect(self.proxy).await else { return };
        let _ = stream.write_all(input).await;
        if self.half_closes {
            let _ = stream.shutdown().await;
        }
        let (mut got, mut part) = (0, [0; 4096]);
        let within = if self.half_closes { PATIENCE } else { SILENCE };
        while let Ok(Ok(n)) = timeout(within, stream.read(&mut part)).await {
            if n == 0 {
                break;
            }
            got += part[..n].windows(12).filter(|word| word.eq_ignore_ascii_case(b"server: ngin")).count();
            if !self.half_closes && got >= answers && answers > 0 {
                break;
            }
        }
    }
}
