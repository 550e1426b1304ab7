//! A peer that writes frames and field sections of its own.

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream};

use crate::quic::LONG;

pub(crate) const DATA: u64 = 0;
pub(crate) const HEADERS: u64 = 1;
pub(crate) const SETTINGS: u64 = 4;

/// An integer of QUIC, in its longest form where that is asked for.
pub(crate) fn integer(number: u64) -> Vec<u8> {
    if number < 64 { vec![number as u8] } else { (number | 0xc000_0000_0000_0000).to_be_bytes().to_vec() }
}

pub(crate) fn frame(kind: u64, octets: &[u8]) -> Vec<u8> {
    [integer(kind), integer(octets.len() as u64), octets.to_vec()].concat()
}

/// A section of literal fields.
pub(crate) fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    let length = |out: &mut Vec<u8>, marks: u8, bits: u32, length: usize| {
        let mask = (1_usize << bits) - 1;
        if length < mask {
            return out.push(marks | length as u8);
        }
        out.push(marks | mask as u8);
        let mut rest = length - mask;
        while rest > 0x7f {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    };
    for (name, value) in fields {
        length(&mut out, 0x20, 3, name.len());
        out.extend_from_slice(name.as_bytes());
        length(&mut out, 0, 7, value.len());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

pub(crate) fn get(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", path)]
}

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Became {
    /// It was answered; the octets of the answer.
    Answered(Vec<u8>),
    /// It was reset with that code.
    Reset(u64),
    /// The connection ended with that code.
    Ended(u64),
}

/// A connection with its control stream, which stays open.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) control: SendStream,
}

impl Peer {
    pub(crate) async fn new(connection: Connection) -> Self {
        let mut control = connection.open_uni().await.unwrap();
        control.write_all(&[vec![0], frame(SETTINGS, &[])].concat()).await.unwrap();
        Self { connection, control }
    }

    /// Writes these octets to a stream of their own, ends it, and reads what comes.
    pub(crate) async fn say(&self, octets: &[u8]) -> Became {
        let Ok((mut send, recv)) = self.connection.open_bi().await else { return self.ended().await };
        let written = send.write_all(octets).await;
        let _ = send.finish();
        match written {
            Err(quinn::WriteError::ConnectionLost(_)) => self.ended().await,
            _ => self.hear(recv).await,
        }
    }

    /// A request without a body.
    pub(crate) async fn ask(&self, fields: &[(&str, &str)]) -> Became {
        self.say(&frame(HEADERS, &section(fields))).await
    }

    pub(crate) async fn hear(&self, mut recv: RecvStream) -> Became {
        let heard = tokio::time::timeout(LONG, recv.read_to_end(1 << 20)).await.expect("it ends in time");
        match heard {
            Ok(octets) => Became::Answered(octets),
            Err(quinn::ReadToEndError::Read(ReadError::Reset(code))) => Became::Reset(code.into_inner()),
            Err(quinn::ReadToEndError::Read(ReadError::ConnectionLost(lost))) => Became::Ended(code(&lost)),
            Err(other) => panic!("{other}"),
        }
    }

    pub(crate) async fn ended(&self) -> Became {
        let lost = tokio::time::timeout(LONG, self.connection.closed()).await.expect("it ends in time");
        Became::Ended(code(&lost))
    }
}

fn code(lost: &ConnectionError) -> u64 {
    match lost {
        ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

/// The status in the first head of an answer, as our own encoder writes it, and the data behind it.
pub(crate) fn read(octets: &[u8]) -> (u16, Bytes) {
    let mut at = 0;
    let mut next = || {
        let length = 1 << (octets[at] >> 6);
        let rest = &octets[at + 1..at + length];
        let number = rest.iter().fold(u64::from(octets[at] & 0x3f), |n, o| n << 8 | u64::from(*o));
        at += length;
        (number, at)
    };
    let (kind, _) = next();
    assert_eq!(kind, HEADERS);
    let (size, begin) = next();
    let head = &octets[begin..begin + usize::try_from(size).unwrap()];
    let status = match &head[2..] {
        [0xd9, ..] => 200,
        [0xc0 | 0xff, 0x04, ..] => 400,
        // A literal with the name of index 24.
        [0x5f, 0x09, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        other => panic!("{other:?}"),
    };
    let mut body = Vec::new();
    let mut rest = &octets[begin + usize::try_from(size).unwrap()..];
    while !rest.is_empty() {
        let parse = |octets: &[u8]| {
            let length = 1 << (octets[0] >> 6);
            let number = octets[1..length].iter().fold(u64::from(octets[0] & 0x3f), |n, o| n << 8 | u64::from(*o));
            (number, length)
        };
        let (kind, used) = parse(rest);
        let (size, more) = parse(&rest[used..]);
        let size = usize::try_from(size).unwrap();
        let data = &rest[used + more..used + more + size];
        if kind == DATA {
            body.extend_from_slice(data);
        }
        rest = &rest[used + more + size..];
    }
    (status, body.into())
}
