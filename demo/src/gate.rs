//! What `atoll demo break` does to a member: its network is cut, and mended again.
//!
//! While the gate is shut, streams through it stand still and lose nothing, as TCP does over a cut cable; a listener takes no new
//! connection and, its queue of one being full, has the kernel drop whoever knocks, so that a connect runs into its own time limit
//! instead of being refused; packets are dropped. Addresses stay bound, so that healing restores the same ones.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use atoll_reach::{Accept, BoxStream, Connect, System};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// After a receive that failed.
const RECEIVE_AGAIN: Duration = Duration::from_millis(5);

/// How long a connect out of a cut member hangs.
const CUT_CONNECT: Duration = Duration::from_secs(3);

/// A switch that cuts a member off. Clones share it.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// Cuts, or mends.
    pub fn set_shut(&self, shut: bool) {
        self.0.send_replace(shut);
    }

    /// Whether it is cut now.
    pub fn is_shut(&self) -> bool {
        *self.0.borrow()
    }

    /// Tells of each change.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// Waits until it is `shut` or not.
    pub async fn wait(&self, shut: bool) {
        // the sender lives in self: this can't fail
        let _ = self.watch().wait_for(|now| *now == shut).await;
    }

    /// A stream that stands still while the gate is shut.
    pub fn guard<S: AsyncRead + AsyncWrite + Unpin>(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone(), reading: None, writing: None }
    }
}

/// A listener behind a gate.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    gate: Gate,
}

impl Door {
    /// Binds `address`.
    ///
    /// # Errors
    /// As `bind`'s.
    pub fn bind(address: SocketAddr, gate: &Gate) -> io::Result<Self> {
        let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG.cast_unsigned())?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, gate: gate.clone() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. Cancel safe.
    pub async fn knock(&mut self) -> io::Result<(Gated<TcpStream>, SocketAddr)> {
        loop {
            if self.gate.is_shut() {
                self.stand_dead().await?;
            }
            tokio::select! {
                biased;
                () = self.gate.wait(true) => {}
                accepted = self.listener.accept() => {
                    let (stream, peer) = accepted?;
                    let _ = stream.set_nodelay(true);
                    return Ok((self.gate.guard(stream), peer));
                }
            }
        }
    }

    /// Fills a queue of one until the gate opens.
    async fn stand_dead(&mut self) -> io::Result<()> {
        SockRef::from(&self.listener).listen(0)?;
        // whoever was in the queue already fills it too; else a connect of our own does
        let filler = tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(self.address)).await;
        self.gate.wait(false).await;
        drop(filler);
        SockRef::from(&self.listener).listen(BACKLOG)
    }
}

#[async_trait::async_trait]
impl Accept for Door {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, peer) = self.knock().await?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// A listener that nobody but this process is told of, on a port of the system's choice.
///
/// # Errors
/// As `bind`'s.
pub(crate) async fn private_listener() -> io::Result<TcpListener> {
    TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await
}

/// A UDP socket behind a gate.
pub(crate) struct Hatch {
    socket: UdpSocket,
    gate: Gate,
}

impl Hatch {
    /// Binds `address`.
    ///
    /// # Errors
    /// As `bind`'s.
    pub(crate) async fn bind(address: SocketAddr, gate: &Gate) -> io::Result<Self> {
        Ok(Self { socket: UdpSocket::bind(address).await?, gate: gate.clone() })
    }

    /// Where it listens.
    #[cfg(test)]
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next packet that gets through. Cancel safe.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> (usize, SocketAddr) {
        loop {
            match self.socket.recv_from(buffer).await {
                Ok(got) if !self.gate.is_shut() => return got,
                Ok(_) => {}
                // an ICMP error of an earlier answer shows up here: it is nobody's
                Err(_) => tokio::time::sleep(RECEIVE_AGAIN).await,
            }
        }
    }

    /// Sends a packet, or loses it.
    pub(crate) async fn send(&self, packet: &[u8], to: SocketAddr) {
        if !self.gate.is_shut() {
            // the receiver may be gone: that is UDP
            let _ = self.socket.send_to(packet, to).await;
        }
    }
}

/// Dials out of a member: nothing gets through while the gate is shut, and what was open stands still.
pub struct Outward {
    gate: Gate,
    system: System,
}

impl Outward {
    /// The way out through `gate`.
    pub fn new(gate: Gate) -> Self {
        Self { gate, system: System::default() }
    }
}

#[async_trait::async_trait]
impl Connect for Outward {
    async fn connect(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        // as a connect over a cut cable: it hangs, and goes through if the cut is mended in time
        if tokio::time::timeout(CUT_CONNECT, self.gate.wait(false)).await.is_err() {
            let why = format!("connect to {host}:{port}: the member is cut off");
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        Ok(Box::new(self.gate.guard(self.system.connect(host, port).await?)))
    }
}

type Opening = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream that stands still while its gate is shut.
pub struct Gated<S> {
    inner: S,
    gate: Gate,
    reading: Option<Opening>,
    writing: Option<Opening>,
}

/// Ready once the gate is open. Each direction waits for itself: it may be polled by a task of its own.
fn poll_open(gate: &Gate, waiting: &mut Option<Opening>, cx: &mut Context<'_>) -> Poll<()> {
    if !gate.is_shut() {
        *waiting = None;
        return Poll::Ready(());
    }
    let opening = waiting.get_or_insert_with(|| {
        let gate = gate.clone();
        Box::pin(async move { gate.wait(false).await })
    });
    ready!(opening.as_mut().poll(cx));
    *waiting = None;
    Poll::Ready(())
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(poll_open(&this.gate, &mut this.reading, cx));
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(poll_open(&this.gate, &mut this.writing, cx));
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(poll_open(&this.gate, &mut this.writing, cx));
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(poll_open(&this.gate, &mut this.writing, cx));
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_cut_member_neither_answers_nor_refuses_and_goes_on_when_healed() {
        let gate = Gate::default();
        let mut door = Door::bind("127.0.0.1:0".parse().unwrap(), &gate).unwrap();
        let address = door.address();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), door.knock());
        let (mut client, (mut server, _)) = (client.unwrap(), accepted.unwrap());
        let serving = tokio::spawn(async move { door.knock().await.map(|_| door) });

        gate.set_shut(true);
        client.write_all(b"before").await.unwrap();
        let mut got = [0; 6];
        assert!(tokio::time::timeout(SOON, server.read_exact(&mut got)).await.is_err(), "bytes got through a cut");
        let knock = tokio::time::timeout(SOON, TcpStream::connect(address)).await;
        assert!(knock.is_err(), "a cut member answered a connect: {knock:?}");

        gate.set_shut(false);
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"before", "what was sent over the cut arrives when it is mended");
        let after = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(address)).await;
        assert!(after.is_ok_and(|c| c.is_ok()), "a healed member takes connections on the same address");
        assert_eq!(serving.await.unwrap().unwrap().address(), address);
    }
}
