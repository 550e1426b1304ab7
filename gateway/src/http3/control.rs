//! Streams of one direction: ours, which says settings and that the end is near, and the client's.
//!
//! In: the streams that a client opens. Out: what it says of itself, or the error of the connection that one of them is. Source: RFC 9114 §6.2,
//! §7.2.4 to §7.2.7, RFC 9204 §4.2, RFC 9220 §3.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use quinn::{Connection, ReadError, RecvStream, SendStream, WriteError};

use super::frames::{
    CANCEL_PUSH, Code, DATA, Fault, Frames, GOAWAY, HEADERS, MAX_PUSH_ID, PUSH_PROMISE, Piece, SETTINGS, Take, frame,
    integer, put,
};

/// Kinds of streams of one direction.
const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;

const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;

/// A client's settings are at most this long.
const SETTINGS_BYTES_MAX: usize = 1024;
/// "Set Dynamic Table Capacity" of 0, the only one that we allow (RFC 9204 §4.3.1).
const NO_CAPACITY: u8 = 0x20;
/// The largest id that a request can have: before we know which is the last one.
const LAST: u64 = (1 << 62) - 4;

/// What a client says of itself, once.
#[derive(Debug)]
pub(super) struct Said {
    /// The longest head that it takes.
    pub(super) section_max: AtomicU64,
    control: AtomicBool,
    encoder: AtomicBool,
    decoder: AtomicBool,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            section_max: AtomicU64::new(u64::MAX),
            control: AtomicBool::default(),
            encoder: AtomicBool::default(),
            decoder: AtomicBool::default(),
        }
    }
}

/// Our own control stream.
pub(super) struct Control(SendStream);

impl Control {
    /// Opens it, and says our settings.
    pub(super) async fn open(connection: &Connection, section_max: usize) -> Result<Self, WriteError> {
        let mut stream = connection.open_uni().await?;
        let mut settings = Vec::new();
        for (name, value) in [(MAX_FIELD_SECTION_SIZE, section_max as u64), (ENABLE_CONNECT_PROTOCOL, 1)] {
            put(&mut settings, name);
            put(&mut settings, value);
        }
        let mut out = Vec::new();
        put(&mut out, CONTROL);
        out.extend_from_slice(&frame(SETTINGS, &settings));
        stream.write_all(&out).await?;
        Ok(Self(stream))
    }

    /// Says that requests from `first` on are not served; nothing: which, will be said (RFC 9114 §5.2).
    pub(super) async fn go_away(&mut self, first: Option<u64>) -> Result<(), WriteError> {
        let mut id = Vec::new();
        put(&mut id, first.unwrap_or(LAST));
        self.0.write_all(&frame(GOAWAY, &id)).await
    }
}

/// Reads a stream of the client's until it ends, or the connection does.
///
/// # Errors
/// What is wrong with the connection.
pub(super) async fn listen(mut stream: RecvStream, said: &Said) -> Result<(), Fault> {
    // A stream that ends before it says what it is for is no error (§6.2).
    let Some((kind, rest)) = kind(&mut stream).await else { return Ok(()) };
    let once = |held: &AtomicBool| {
        let again = Fault::Connection(Code::StreamCreation, "a second stream of a kind that there is once");
        if held.swap(true, Ordering::Relaxed) { Err(again) } else { Ok(()) }
    };
    match kind {
        CONTROL => {
            once(&said.control)?;
            critical(control(Frames::with(stream, rest), said).await)
        }
        ENCODER => {
            once(&said.encoder)?;
            critical(encoder(stream, rest).await)
        }
        DECODER => {
            once(&said.decoder)?;
            critical(decoder(stream).await)
        }
        PUSH => Err(Fault::Connection(Code::StreamCreation, "a client pushes")),
        _ => {
            // "Recipients of unknown stream types MUST either abort reading of the stream or discard incoming data" (§6.2).
            let _ = stream.stop(Code::StreamCreation.into());
            Ok(())
        }
    }
}

/// What a stream is for, and what was read behind that.
async fn kind(stream: &mut RecvStream) -> Option<(u64, Bytes)> {
    let mut octets = Vec::new();
    loop {
        let chunk = stream.read_chunk(64, true).await.ok()??;
        octets.extend_from_slice(&chunk.bytes);
        if let Some((kind, used)) = integer(&octets) {
            return Some((kind, Bytes::from(octets).slice(used..)));
        }
    }
}

/// "If either control stream is closed at any point, this MUST be treated as a connection error of type H3_CLOSED_CRITICAL_STREAM" (§6.2.1); so
/// it is of QPACK's (RFC 9204 §4.2).
fn critical(ended: Result<(), Fault>) -> Result<(), Fault> {
    let closed = Fault::Connection(Code::ClosedCriticalStream, "a stream ends that must not");
    match ended {
        Ok(()) | Err(Fault::Gone(ReadError::Reset(_))) => Err(closed),
        Err(Fault::Gone(_)) => Ok(()),
        Err(fault) => Err(fault),
    }
}

async fn control(mut frames: Frames, said: &Said) -> Result<(), Fault> {
    let (mut is_first, mut away, mut pushes) = (true, u64::MAX, 0);
    loop {
        let next = poll_fn(|cx| frames.poll_next(cx, |kind| taken(kind, is_first)));
        let Some(piece) = next.await? else { return Ok(()) };
        is_first = false;
        match piece {
            Piece::Whole(SETTINGS, octets) => settings(&octets, said)?,
            Piece::Whole(kind, octets) => {
                let (id, used) = integer(&octets).ok_or(CROOKED)?;
                if used != octets.len() {
                    return Err(CROOKED);
                }
                // Ids only shrink in the one, and only grow in the other (§5.2, §7.2.7).
                let held = if kind == GOAWAY { &mut away } else { &mut pushes };
                let back = if kind == GOAWAY { id > *held } else { id < *held };
                if back {
                    return Err(Fault::Connection(Code::Id, "an id goes back"));
                }
                *held = id;
            }
            Piece::TooLong(_) => return Err(Fault::Connection(Code::ExcessiveLoad, "a frame that is too long")),
            Piece::Data(_) => {}
        }
    }
}

const CROOKED: Fault = Fault::Connection(Code::Frame, "a frame holds something else than an id");

/// What is done with a frame of the control stream.
fn taken(kind: u64, is_first: bool) -> Take {
    match kind {
        SETTINGS if is_first => Take::Whole(SETTINGS_BYTES_MAX),
        _ if is_first => Take::Refuse(Code::MissingSettings),
        GOAWAY | MAX_PUSH_ID => Take::Whole(8),
        // Nothing was ever promised.
        CANCEL_PUSH => Take::Refuse(Code::Id),
        SETTINGS | DATA | HEADERS | PUSH_PROMISE => Take::Refuse(Code::FrameUnexpected),
        _ => unknown(kind),
    }
}

/// The same of a kind that this protocol does not have: those of HTTP/2 must not come, all others mean nothing (§7.2.8, §9).
pub(super) fn unknown(kind: u64) -> Take {
    if matches!(kind, 0x2 | 0x6 | 0x8 | 0x9) { Take::Refuse(Code::FrameUnexpected) } else { Take::Skip }
}

fn settings(mut octets: &[u8], said: &Said) -> Result<(), Fault> {
    let bad = |why| Fault::Connection(Code::Settings, why);
    let mut seen = Vec::new();
    while !octets.is_empty() {
        let (name, used) = integer(octets).ok_or(CROOKED)?;
        octets = &octets[used..];
        let (value, used) = integer(octets).ok_or(CROOKED)?;
        octets = &octets[used..];
        if seen.contains(&name) {
            return Err(bad("a setting twice"));
        }
        seen.push(name);
        match name {
            0x2..=0x5 => return Err(bad("a setting of HTTP/2")),
            MAX_FIELD_SECTION_SIZE => said.section_max.store(value, Ordering::Relaxed),
            _ => {}
        }
    }
    Ok(())
}

/// The encoder has no table to write to.
async fn encoder(mut stream: RecvStream, mut octets: Bytes) -> Result<(), Fault> {
    loop {
        if octets.iter().any(|octet| *octet != NO_CAPACITY) {
            return Err(Fault::Connection(Code::EncoderStream, "a table that was not allowed"));
        }
        let Some(chunk) = stream.read_chunk(1024, true).await.map_err(Fault::Gone)? else { return Ok(()) };
        octets = chunk.bytes;
    }
}

/// What it says is about a table that we do not have.
async fn decoder(mut stream: RecvStream) -> Result<(), Fault> {
    while stream.read_chunk(1024, true).await.map_err(Fault::Gone)?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_once_each() {
        for (octets, found) in [
            (&[][..], Ok(u64::MAX)),
            (&[0x06, 0x40, 0x64, 0x21, 0x00], Ok(100)),
            (&[0x06, 0x01, 0x06, 0x01], Err(Code::Settings)),
            (&[0x02, 0x01], Err(Code::Settings)),
            (&[0x06], Err(Code::Frame)),
        ] {
            let said = Said::default();
            let read = settings(octets, &said).map(|()| said.section_max.load(Ordering::Relaxed));
            let read = read.map_err(|fault| match fault {
                Fault::Connection(code, _) => code,
                Fault::Gone(gone) => panic!("{gone}"),
            });
            assert_eq!(read, found, "{octets:?}");
        }
    }

    #[test]
    fn frames_stand_where_they_may() {
        for (kind, first, expected) in [
            (SETTINGS, true, Take::Whole(SETTINGS_BYTES_MAX)),
            (GOAWAY, true, Take::Refuse(Code::MissingSettings)),
            (0x21, true, Take::Refuse(Code::MissingSettings)),
            (SETTINGS, false, Take::Refuse(Code::FrameUnexpected)),
            (DATA, false, Take::Refuse(Code::FrameUnexpected)),
            (0x6, false, Take::Refuse(Code::FrameUnexpected)),
            (CANCEL_PUSH, false, Take::Refuse(Code::Id)),
            (MAX_PUSH_ID, false, Take::Whole(8)),
            (0xf0700, false, Take::Skip),
        ] {
            assert_eq!(taken(kind, first), expected, "{kind:#x}");
        }
    }
}
