//! What two gateways say to each other: messages of JSON, one a packet, with descriptors beside them (SCM_RIGHTS).
//!
//! In: a path. Out: peers of the same user. Bounds: a packet, the descriptors of one. Source: unix(7), `SOCK_SEQPACKET`, `SO_PEERCRED`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// A message is at most this long.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Descriptors with one message; the system takes 253.
pub(super) const DESCRIPTORS_MAX: usize = 64;
/// Who is asked answers at once.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "camelCase")]
pub(super) enum Message {
    /// The next process wants the sockets.
    Hello { protocol: u32, version: String, pid: u32 },
    /// It does not get them.
    Refused { why: String },
    /// Some of them, in the order of their descriptors. `more`: others follow. `keys`: of connection ids, this process's and those of the ones
    /// before it.
    Sockets { names: Vec<String>, more: bool, keys: Vec<u64> },
    /// The next process takes relay connections, which agents are to open there.
    Relays,
    /// They were asked to; these are they.
    Relayed { clusters: Vec<String> },
    /// The next process serves. Beside it: where it hands packets back.
    Ready,
    /// The running one takes no more connections.
    Drains,
    /// The running one is to say that it is not ready any more, and go on.
    Leave,
    /// It says so.
    Leaves,
}

/// Whoever is at the other end.
pub(super) struct Peer(UnixStream);

impl Peer {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        // The runtime knows streams; that this one keeps packets apart makes no difference to it.
        Ok(Self(UnixStream::from_std(socket.into())?))
    }

    /// Whether it runs as the same user as we do; root is no exception.
    pub(super) fn is_ours(&self) -> io::Result<bool> {
        Ok(self.0.peer_cred()?.uid() == nix::unistd::Uid::effective().as_raw())
    }

    /// Says something. Cancel safe: a packet goes whole or not at all.
    pub(super) async fn send(&self, message: &Message, descriptors: &[OwnedFd]) -> io::Result<()> {
        let octets = serde_json::to_vec(message)?;
        let borrowed: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        let sent = self.0.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(io::Error::other("too many descriptors for one message"));
            }
            Ok(sendmsg(&self.0, &[IoSlice::new(&octets)], &mut control, SendFlags::NOSIGNAL)?)
        });
        timeout(ANSWER_MAX, sent).await??;
        Ok(())
    }

    /// Waits for the next message and what comes with it. Cancel safe.
    pub(super) async fn receive(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut octets = vec![0; MESSAGE_BYTES_MAX];
        let received = self.0.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let got = recvmsg(&self.0, &mut [IoSliceMut::new(&mut octets)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let rights = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            });
            Ok((got.bytes, rights.flatten().collect::<Vec<OwnedFd>>()))
        });
        let (length, descriptors) = received.await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((serde_json::from_slice(&octets[..length])?, descriptors))
    }
}

/// Where the next process knocks.
pub(super) struct Door(UnixListener);

impl Door {
    /// Opens it, in the place of one that nobody has any more.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, 8)?;
        Ok(Self(UnixListener::from_std(socket.into())?))
    }

    /// Waits for the next one who knocks. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Peer> {
        Ok(Peer(self.0.accept().await?.0))
    }
}

/// Knocks; nobody where no process has the path.
pub(super) fn knock(path: &Path) -> io::Result<Option<Peer>> {
    let socket = socket()?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?).map_err(io::Error::from) {
        Ok(()) => Peer::new(socket).map(Some),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(error),
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}
