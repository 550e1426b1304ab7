//! HTTP/2 written by hand: frames and field lists that no library would write, and what comes back (RFC 9113 §4, RFC 7541 §6.2.2).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const FRAME_BYTES_MAX: usize = 16_384;

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field list, each field a literal that is not indexed.
pub(crate) fn field_list(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for part in [name, value] {
            integer(&mut out, part.len());
            out.extend_from_slice(part);
        }
    }
    out
}

/// A number with a prefix of seven bits (RFC 7541 §5.1).
fn integer(out: &mut Vec<u8>, n: usize) {
    if n < 127 {
        return out.push(u8::try_from(n).unwrap());
    }
    out.push(127);
    let mut n = n - 127;
    while n >= 128 {
        out.push(u8::try_from(n % 128).unwrap() | 128);
        n /= 128;
    }
    out.push(u8::try_from(n).unwrap());
}

/// A field list in as many frames as it needs.
pub(crate) fn headers(stream: u32, fields: &[(Vec<u8>, Vec<u8>)], ends: bool) -> Vec<u8> {
    let list = field_list(fields);
    let parts: Vec<&[u8]> = if list.is_empty() { vec![b""] } else { list.chunks(FRAME_BYTES_MAX).collect() };
    let mut out = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let last = if at + 1 == parts.len() { END_HEADERS } else { 0 };
        let (kind, first) = if at == 0 { (HEADERS, u8::from(ends) * END_STREAM) } else { (CONTINUATION, 0) };
        out.extend(frame(kind, first | last, stream, part));
    }
    out
}

/// The fields of a request for `target` of host `a`.
pub(crate) fn asks(method: &str, target: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", target)]
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec()
}

/// A frame that came.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error that RST_STREAM or GOAWAY names.
    pub(crate) fn error(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }

    /// The status that HEADERS begin with: of the static table, or a literal in Huffman's code, which digits have five or six bits of.
    pub(crate) fn status(&self) -> u16 {
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        let first = self.payload.iter().position(|b| b & 0xe0 != 0x20).unwrap_or(0);
        match self.payload[first..] {
            [at @ 0x88..=0x8e, ..] => INDEXED[usize::from(at - 0x88)],
            [_, length, ref rest @ ..] if length & 0x80 != 0 => digits(&rest[..usize::from(length & 0x7f)]),
            [_, length, ref rest @ ..] => std::str::from_utf8(&rest[..usize::from(length)]).unwrap().parse().unwrap(),
            _ => 0,
        }
    }
}

fn digits(code: &[u8]) -> u16 {
    let bits: String = code.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut at, mut n) = (0, 0);
    while at + 5 <= bits.len() && n < 100 {
        let five = u16::from_str_radix(&bits[at..at + 5], 2).unwrap();
        let digit = if five <= 2 {
            at += 5;
            five
        } else {
            let six = u16::from_str_radix(bits.get(at..at + 6).unwrap_or("0"), 2).unwrap();
            at += 6;
            six.saturating_sub(0x19) + 3
        };
        n = n * 10 + digit;
    }
    n
}

/// A connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    octets: Vec<u8>,
}

impl Peer {
    /// Connects, and says the preface and no settings of its own.
    pub(crate) async fn connect(at: SocketAddr) -> Self {
        let mut peer = Self { stream: TcpStream::connect(at).await.unwrap(), octets: Vec::new() };
        peer.say(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await;
        peer
    }

    /// Whether that could be written.
    pub(crate) async fn say(&mut self, octets: &[u8]) -> bool {
        self.stream.write_all(octets).await.is_ok()
    }

    /// The next frame; nothing at the end, or when none comes for 10 s.
    pub(crate) async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.octets.first_chunk::<9>() {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let (kind, flags) = (head[3], head[4]);
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
                if self.octets.len() >= 9 + length {
                    let payload = self.octets[9..9 + length].to_vec();
                    self.octets.drain(..9 + length);
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            let read = tokio::time::timeout(Duration::from_secs(10), self.stream.read_buf(&mut self.octets));
            match read.await {
                Ok(Ok(n)) if n > 0 => {}
                _ => return None,
            }
        }
    }
}

/// What came of a request on a stream of its own connection: a status, or nothing where stream or connection was ended.
pub(crate) async fn ask(
    at: SocketAddr,
    fields: &[(Vec<u8>, Vec<u8>)],
    data: Option<&[u8]>,
    trailers: Option<&[(Vec<u8>, Vec<u8>)]>,
) -> Option<u16> {
    let mut peer = Peer::connect(at).await;
    let mut said = headers(1, fields, data.is_none());
    if let Some(data) = data {
        said.extend(frame(DATA, u8::from(trailers.is_none()) * END_STREAM, 1, data));
    }
    if let Some(trailers) = trailers {
        said.extend(headers(1, trailers, true));
    }
    peer.say(&said).await;
    while let Some(heard) = peer.hear().await {
        match heard.kind {
            HEADERS if heard.stream == 1 && heard.status() >= 200 => return Some(heard.status()),
            RST_STREAM | GOAWAY => return None,
            _ => {}
        }
    }
    None
}
