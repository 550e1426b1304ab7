//! What every server of a member does with its connections.
//!
//! In: a door, and what to do with one connection. Out: each connection in a task of its own, so many at once; who comes beyond that
//! is hung up on. It ends by its token, after the connections that are open.

use std::{net::SocketAddr, time::Duration};

use atoll_reach::{Connect, System};
use tokio::{io::copy_bidirectional, net::TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::gate::{Door, Gated};

/// After an accept that failed (out of descriptors): do not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves the connections of `door` until `end`, at most `connections_max` at once. `one` has to end by `end`, too.
pub(crate) async fn serve<F>(
    mut door: Door,
    connections_max: usize,
    end: &CancellationToken,
    one: impl Fn(Gated<TcpStream>, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let connections = TaskTracker::new();
    while let Some(knock) = end.run_until_cancelled(door.knock()).await {
        match knock {
            Ok((stream, peer)) if connections.len() < connections_max => drop(connections.spawn(one(stream, peer))),
            Ok(_) => {}
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    connections.close();
    connections.wait().await;
}

/// Passes bytes between a client and an address, until one of them closes, or `end`.
pub(crate) async fn forward(mut client: Gated<TcpStream>, to: SocketAddr, end: CancellationToken) {
    let both = async {
        let mut server = System::default().connect(&to.ip().to_string(), to.port()).await?;
        copy_bidirectional(&mut client, &mut server).await
    };
    // either side may go away at any time: that is no news
    let _ = end.run_until_cancelled(both).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::gate::Gate;

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_the_end_waits_for_those_that_are_open() {
        let door = Door::bind("127.0.0.1:0".parse().unwrap(), &Gate::default()).unwrap();
        let (address, end) = (door.address(), CancellationToken::new());
        let echo = |mut stream: Gated<TcpStream>, _| async move {
            while let Ok(byte) = stream.read_u8().await {
                let _ = stream.write_u8(byte).await;
            }
        };
        let stop = end.clone();
        let serving = tokio::spawn(async move { serve(door, 1, &stop, echo).await });
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_u8(1).await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), 1);
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(second.read_u8().await.is_err(), "the second one was served");
        end.cancel();
        first.write_u8(2).await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), 2, "what is open goes on");
        drop(first);
        tokio::time::timeout(Duration::from_secs(20), serving).await.expect("it ends with the last one").unwrap();
    }
}
