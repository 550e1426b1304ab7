//! The PROXY protocol, version 2: a load balancer says on whose behalf it opened a connection. Pure but for reading the octets.
//!
//! In: the first octets of a connection. Out: the client's address, or that the connection is the balancer's own. What is not exactly a
//! header is refused, whole; what a header holds beyond addresses is skipped. Source: HAProxy, "The PROXY protocol", §2.2.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// With which a header begins.
pub(crate) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const HEAD_BYTES: usize = 16;
/// After the head: addresses and what else is said. Longer ones than any balancer sends are refused.
const REST_BYTES_MAX: usize = 2048;

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It begins otherwise.
    #[error("no PROXY protocol header of version 2")]
    Missing,
    /// Command, family or protocol that there is not, or is not ours.
    #[error("PROXY protocol header of an unknown kind")]
    Unknown,
    /// Too long, or too short for its addresses.
    #[error("PROXY protocol header of a bad length")]
    Length,
}

/// The fixed part of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The balancer's own connection, to see whether we live.
    local: bool,
    family: Family,
    /// Octets that follow.
    rest: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Unspecified,
    V4,
    V6,
}

impl Head {
    /// Reads the first 16 octets.
    pub(crate) fn read(octets: &[u8; HEAD_BYTES]) -> Result<Self, Refused> {
        if !octets.starts_with(SIGNATURE) || octets[12] >> 4 != 2 {
            return Err(Refused::Missing);
        }
        let local = match octets[12] & 0x0f {
            0 => true,
            1 => false,
            _ => return Err(Refused::Unknown),
        };
        // "a receiver … must accept UNSPEC"; datagrams do not come by a stream, and paths of UNIX sockets are nobody's address.
        let family = match octets[13] {
            0x11 => Family::V4,
            0x21 => Family::V6,
            0x00 | 0x31 => Family::Unspecified,
            _ if local => Family::Unspecified,
            _ => return Err(Refused::Unknown),
        };
        let rest = usize::from(u16::from_be_bytes([octets[14], octets[15]]));
        if rest > REST_BYTES_MAX { Err(Refused::Length) } else { Ok(Self { local, family, rest }) }
    }

    /// The client's address out of what follows; `None`: the connection's own counts.
    pub(crate) fn client(self, rest: &[u8]) -> Result<Option<SocketAddr>, Refused> {
        let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        match self.family {
            _ if self.local => Ok(None),
            Family::Unspecified => Ok(None),
            // Both addresses, both ports.
            Family::V4 if rest.len() < 12 => Err(Refused::Length),
            Family::V6 if rest.len() < 36 => Err(Refused::Length),
            Family::V4 => {
                let ip = Ipv4Addr::new(rest[0], rest[1], rest[2], rest[3]);
                Ok(Some(SocketAddr::new(ip.into(), port(8))))
            }
            Family::V6 => {
                let ip = rest.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets)).ok_or(Refused::Length)?;
                Ok(Some(SocketAddr::new(ip.into(), port(32))))
            }
        }
    }
}

/// Takes the header off a stream.
///
/// # Errors
/// The stream's, or `InvalidData` for what is no header.
pub(crate) async fn take(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let refused = |why: Refused| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut octets = [0; HEAD_BYTES];
    stream.read_exact(&mut octets).await?;
    let head = Head::read(&octets).map_err(refused)?;
    let mut rest = vec![0; head.rest];
    stream.read_exact(&mut rest).await?;
    head.client(&rest).map_err(refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut octets = SIGNATURE.to_vec();
        octets.extend([0x20 | command, family]);
        octets.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        octets.extend(rest);
        octets
    }

    fn read(octets: &[u8]) -> Result<Option<SocketAddr>, Refused> {
        let head = Head::read(octets.first_chunk().unwrap())?;
        head.client(&octets[HEAD_BYTES..])
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0, 53];

    #[test]
    fn a_header_names_the_client() {
        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        (v6[15], v6[33]) = (7, 9);
        let mut more = V4.to_vec();
        more.extend([0x04, 0, 3, 1, 2, 3]);
        for (case, octets, want) in [
            ("IPv4", header(1, 0x11, &V4), Ok(Some("192.0.2.1:12345"))),
            ("IPv6", header(1, 0x21, &v6), Ok(Some("[2001::7]:9"))),
            ("with more in it", header(1, 0x11, &more), Ok(Some("192.0.2.1:12345"))),
            ("the balancer's own", header(0, 0x11, &V4), Ok(None)),
            ("of no family", header(1, 0, &[]), Ok(None)),
            ("a UNIX socket's", header(1, 0x31, &[0; 216]), Ok(None)),
            ("datagrams", header(1, 0x12, &V4), Err(Refused::Unknown)),
            ("another command", header(2, 0x11, &V4), Err(Refused::Unknown)),
            ("too short", header(1, 0x11, &V4[..11]), Err(Refused::Length)),
            ("too long", header(1, 0x11, &[0; 2049]), Err(Refused::Length)),
            ("version 1", b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(), Err(Refused::Missing)),
        ] {
            assert_eq!(read(&octets), want.map(|at| at.map(|at| at.parse().unwrap())), "{case}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_header_stays_in_the_stream() {
        let mut octets = header(1, 0x11, &V4);
        octets.extend(b"query");
        let mut stream = &octets[..];
        assert_eq!(take(&mut stream).await.unwrap().unwrap().port(), 12345);
        assert_eq!(stream, b"query");
        let cut = take(&mut &octets[..20]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn any_octets_are_a_header_or_refused(mut octets in prop::collection::vec(any::<u8>(), 16..300), close: bool) {
            if close {
                octets[..12].copy_from_slice(SIGNATURE);
                octets[12] = 0x20 | octets[12] & 0x11;
            }
            if let Ok(Some(client)) = read(&octets) {
                let at = if client.is_ipv4() { 24 } else { 48 };
                prop_assert!(close);
                prop_assert_eq!(client.port(), u16::from_be_bytes([octets[at], octets[at + 1]]));
            }
        }
    }
}
