//! The PROXY protocol: a load balancer says on whose behalf it opened a connection, and we say so to servers. Pure but for reading the octets.
//!
//! In: the first octets of a connection. Out: both its ends, or that the connection is the balancer's own; and headers as octets. What
//! is not exactly a header is refused, whole; what a header holds beyond addresses is skipped. Source: HAProxy, "The PROXY protocol", §2.1
//! (version 1), §2.2 (version 2).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// With which a header begins.
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const HEAD_BYTES: usize = 16;
/// "the longest possible line", with its end.
const LINE_BYTES_MAX: usize = 107;
/// After the head: addresses and what else is said. Longer ones than any balancer sends are refused.
const REST_BYTES_MAX: usize = 2048;

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It begins otherwise.
    #[error("no PROXY protocol header that is taken here")]
    Missing,
    /// Command, family or protocol that there is not, or is not ours.
    #[error("PROXY protocol header of an unknown kind")]
    Unknown,
    /// Too long, or too short for its addresses.
    #[error("PROXY protocol header of a bad length")]
    Length,
}

/// Both ends of a client's connection: what a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Who opened it; of the port 0 nothing is known.
    pub client: SocketAddr,
    /// The address that it was opened to.
    pub server: SocketAddr,
}

/// The fixed part of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
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
    pub(super) fn read(octets: &[u8; HEAD_BYTES]) -> Result<Self, Refused> {
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

    /// The addresses out of what follows; `None`: the connection's own count.
    pub(super) fn ends(self, rest: &[u8]) -> Result<Option<Ends>, Refused> {
        let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        match self.family {
            _ if self.local => Ok(None),
            Family::Unspecified => Ok(None),
            // Both addresses, both ports.
            Family::V4 if rest.len() < 12 => Err(Refused::Length),
            Family::V6 if rest.len() < 36 => Err(Refused::Length),
            Family::V4 => {
                let ip = |at: usize| Ipv4Addr::new(rest[at], rest[at + 1], rest[at + 2], rest[at + 3]).into();
                let (client, server) = (SocketAddr::new(ip(0), port(8)), SocketAddr::new(ip(4), port(10)));
                Ok(Some(Ends { client, server }))
            }
            Family::V6 => {
                let ip = |at: usize| rest[at..].first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into());
                let (Some(from), Some(to)) = (ip(0), ip(16)) else { return Err(Refused::Length) };
                Ok(Some(Ends { client: SocketAddr::new(from, port(32)), server: SocketAddr::new(to, port(34)) }))
            }
        }
    }
}

/// Which version is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Octets.
    V2,
}

/// The header that says whose connection it is.
pub fn header(version: Version, Ends { client, server }: Ends) -> Vec<u8> {
    let (from, to) = match (client.ip().to_canonical(), server.ip().to_canonical()) {
        (from @ IpAddr::V4(_), to @ IpAddr::V4(_)) => (from, to),
        // Of two families the one that holds both.
        (from, to) => (IpAddr::V6(six(from)), IpAddr::V6(six(to))),
    };
    let ports = (client.port(), server.port());
    if version == Version::V1 {
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        return format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes();
    }
    let mut octets = SIGNATURE.to_vec();
    // Version 2, command PROXY; then family and stream, and how long the rest is.
    octets.push(0x21);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            octets.extend([0x11, 0, 12]);
            octets.extend(from.octets().into_iter().chain(to.octets()));
        }
        (from, to) => {
            octets.extend([0x21, 0, 36]);
            octets.extend(six(from).octets().into_iter().chain(six(to).octets()));
        }
    }
    octets.extend(ports.0.to_be_bytes().into_iter().chain(ports.1.to_be_bytes()));
    octets
}

fn six(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The ends that a line names; `None`: the connection's own count.
fn line(line: &str) -> Result<Option<Ends>, Refused> {
    let words: Vec<&str> = line.strip_prefix("PROXY ").ok_or(Refused::Missing)?.split(' ').collect();
    let port = |word: &str| {
        let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse::<u16>().ok().filter(|_| plain)
    };
    match *words.as_slice() {
        // "UNKNOWN": the rest of the line is not looked at.
        ["UNKNOWN", ..] => Ok(None),
        [family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let ip = |word: &str| match family {
                "TCP4" => word.parse().ok().map(IpAddr::V4),
                _ => word.parse().ok().map(IpAddr::V6),
            };
            let all = (ip(from), ip(to), port(from_port), port(to_port));
            let (Some(from), Some(to), Some(from_port), Some(to_port)) = all else { return Err(Refused::Unknown) };
            Ok(Some(Ends { client: SocketAddr::new(from, from_port), server: SocketAddr::new(to, to_port) }))
        }
        _ => Err(Refused::Unknown),
    }
}

/// Takes the header off a stream, of either version.
///
/// # Errors
/// The stream's, or `InvalidData` for what is no header.
pub async fn take_any(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Ends>> {
    let refused = |why: Refused| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut first = [0; SIGNATURE.len()];
    stream.read_exact(&mut first).await?;
    if first == *SIGNATURE {
        let mut octets = [0; HEAD_BYTES];
        octets[..first.len()].copy_from_slice(&first);
        stream.read_exact(&mut octets[first.len()..]).await?;
        return after(stream, &octets).await;
    }
    let mut read = first.to_vec();
    if !read.starts_with(b"PROXY ") {
        return Err(refused(Refused::Missing));
    }
    // One at a time: what comes after the line is the client's.
    while !read.ends_with(b"\r\n") {
        if read.len() >= LINE_BYTES_MAX {
            return Err(refused(Refused::Length));
        }
        read.push(stream.read_u8().await?);
    }
    read.truncate(read.len() - 2);
    let text = std::str::from_utf8(&read).map_err(|_| refused(Refused::Unknown))?;
    line(text).map_err(refused)
}

/// Takes the header off a stream, of version 2.
///
/// # Errors
/// The stream's, or `InvalidData` for what is no header.
pub async fn take(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Ends>> {
    let mut octets = [0; HEAD_BYTES];
    stream.read_exact(&mut octets).await?;
    after(stream, &octets).await
}

/// Takes what follows the fixed part.
async fn after(stream: &mut (impl AsyncRead + Unpin), octets: &[u8; HEAD_BYTES]) -> io::Result<Option<Ends>> {
    let refused = |why: Refused| io::Error::new(io::ErrorKind::InvalidData, why);
    let head = Head::read(octets).map_err(refused)?;
    let mut rest = vec![0; head.rest];
    stream.read_exact(&mut rest).await?;
    head.ends(&rest).map_err(refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut octets = SIGNATURE.to_vec();
        octets.extend([0x20 | command, family]);
        octets.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        octets.extend(rest);
        octets
    }

    fn read(octets: &[u8]) -> Result<Option<Ends>, Refused> {
        let head = Head::read(octets.first_chunk().unwrap())?;
        head.ends(&octets[HEAD_BYTES..])
    }

    fn ends((client, server): (&str, &str)) -> Ends {
        Ends { client: client.parse().unwrap(), server: server.parse().unwrap() }
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0, 53];

    #[test]
    fn a_header_names_both_ends() {
        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        (v6[15], v6[31], v6[33], v6[35]) = (7, 8, 9, 10);
        let mut more = V4.to_vec();
        more.extend([0x04, 0, 3, 1, 2, 3]);
        for (case, octets, want) in [
            ("IPv4", written(1, 0x11, &V4), Ok(Some(("192.0.2.1:12345", "10.0.0.1:53")))),
            ("IPv6", written(1, 0x21, &v6), Ok(Some(("[2001::7]:9", "[::8]:10")))),
            ("with more in it", written(1, 0x11, &more), Ok(Some(("192.0.2.1:12345", "10.0.0.1:53")))),
            ("the balancer's own", written(0, 0x11, &V4), Ok(None)),
            ("of no family", written(1, 0, &[]), Ok(None)),
            ("a UNIX socket's", written(1, 0x31, &[0; 216]), Ok(None)),
            ("datagrams", written(1, 0x12, &V4), Err(Refused::Unknown)),
            ("another command", written(2, 0x11, &V4), Err(Refused::Unknown)),
            ("too short", written(1, 0x11, &V4[..11]), Err(Refused::Length)),
            ("too long", written(1, 0x11, &[0; 2049]), Err(Refused::Length)),
            ("version 1", b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(), Err(Refused::Missing)),
        ] {
            assert_eq!(read(&octets), want.map(|at| at.map(ends)), "{case}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_header_stays_in_the_stream() {
        let mut octets = written(1, 0x11, &V4);
        octets.extend(b"query");
        let mut stream = &octets[..];
        assert_eq!(take(&mut stream).await.unwrap().unwrap().client.port(), 12345);
        assert_eq!(stream, b"query");
        let cut = take(&mut &octets[..20]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn either_version_is_taken_and_what_follows_stays() {
        for (case, octets, want) in [
            ("version 2", written(1, 0x11, &V4), Some(Some(("192.0.2.1:12345", "10.0.0.1:53")))),
            (
                "IPv4",
                b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 80\r\n".to_vec(),
                Some(Some(("192.0.2.1:12345", "10.0.0.1:80"))),
            ),
            ("IPv6", b"PROXY TCP6 2001::7 ::1 9 80\r\n".to_vec(), Some(Some(("[2001::7]:9", "[::1]:80")))),
            ("unknown", b"PROXY UNKNOWN what ever\r\n".to_vec(), Some(None)),
            ("another family", b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(), None),
            ("a port that is none", b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 80\r\n".to_vec(), None),
            ("a port with a zero before it", b"PROXY TCP4 192.0.2.1 10.0.0.1 01 80\r\n".to_vec(), None),
            ("a word too many", b"PROXY TCP4 192.0.2.1 10.0.0.1 1 80 x\r\n".to_vec(), None),
            ("too long", [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 120], b"\r\n".to_vec()].concat(), None),
            ("a request", b"GET / HTTP/1.1\r\n\r\n".to_vec(), None),
        ] {
            let octets = [octets, b"rest".to_vec()].concat();
            let mut stream = &octets[..];
            let taken = take_any(&mut stream).await.ok();
            assert_eq!(taken, want.map(|at| at.map(ends)), "{case}");
            assert!(want.is_none() || stream == b"rest", "{case}");
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read_again() {
        let addresses =
            ["192.0.2.1:1", "[2001::7]:65535", "[::ffff:10.0.0.1]:80"].map(|at| at.parse::<SocketAddr>().unwrap());
        for version in [Version::V1, Version::V2] {
            for (client, server) in addresses.iter().flat_map(|a| addresses.iter().map(move |b| (a, b))) {
                let written = Ends { client: *client, server: *server };
                let read = take_any(&mut &header(version, written)[..]).await.unwrap().unwrap();
                for (read, written) in [(read.client, client), (read.server, server)] {
                    assert_eq!(read.ip().to_canonical(), written.ip().to_canonical(), "{version:?} {client} {server}");
                    assert_eq!(read.port(), written.port());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_a_header_or_refused(mut octets in prop::collection::vec(any::<u8>(), 16..300), close: bool) {
            if close {
                octets[..12].copy_from_slice(SIGNATURE);
                octets[12] = 0x20 | octets[12] & 0x11;
            }
            if let Ok(Some(Ends { client, .. })) = read(&octets) {
                let at = if client.is_ipv4() { 24 } else { 48 };
                prop_assert!(close);
                prop_assert_eq!(client.port(), u16::from_be_bytes([octets[at], octets[at + 1]]));
            }
        }
    }
}
