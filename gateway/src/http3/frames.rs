//! Frames of HTTP/3 as they are read: data in pieces, few kinds whole, what nobody knows skipped.
//!
//! In: a stream of QUIC. Out: pieces. What a frame says of its length takes no memory: data and unknown kinds pass through, and a kind that is
//! taken whole is refused before it is read where it is longer than it may be. Source: RFC 9114 §7, RFC 9000 §16.

use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::{ReadError, RecvStream, VarInt};

/// Kinds of frames (RFC 9114 §7.2).
pub(super) const DATA: u64 = 0x0;
pub(super) const HEADERS: u64 = 0x1;
pub(super) const CANCEL_PUSH: u64 = 0x3;
pub(super) const SETTINGS: u64 = 0x4;
pub(super) const PUSH_PROMISE: u64 = 0x5;
pub(super) const GOAWAY: u64 = 0x7;
pub(super) const MAX_PUSH_ID: u64 = 0xd;

/// Kind and length: two integers of eight octets.
const FRONT_BYTES_MAX: usize = 16;
/// Octets that are taken from QUIC at once.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Why a connection or a stream ends (RFC 9114 §8.1, RFC 9204 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Code {
    NoError = 0x100,
    StreamCreation = 0x103,
    ClosedCriticalStream = 0x104,
    FrameUnexpected = 0x105,
    Frame = 0x106,
    ExcessiveLoad = 0x107,
    Id = 0x108,
    Settings = 0x109,
    MissingSettings = 0x10a,
    RequestRejected = 0x10b,
    RequestCancelled = 0x10c,
    RequestIncomplete = 0x10d,
    Message = 0x10e,
    Internal = 0x102,
    Decompression = 0x200,
    EncoderStream = 0x201,
}

impl From<Code> for VarInt {
    fn from(code: Code) -> Self {
        Self::from_u32(code as u32)
    }
}

/// What became of a stream that can't be read on.
#[derive(Debug)]
pub(super) enum Fault {
    /// The whole connection is at fault.
    Connection(Code, &'static str),
    /// Its client took the stream back, or the connection is gone.
    Gone(ReadError),
}

/// What is done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// It is handed on as it comes.
    Data,
    /// It is handed on whole, where it is no longer than that.
    Whole(usize),
    Skip,
    /// It must not be there.
    Refuse(Code),
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    Whole(u64, Vec<u8>),
    /// A frame of that kind is longer than it may be; nothing after it can be read.
    TooLong(u64),
}

enum State {
    /// Reading kind and length.
    Front([u8; FRONT_BYTES_MAX], usize),
    Data(u64),
    Skip(u64),
    Whole {
        kind: u64,
        left: usize,
        read: Vec<u8>,
    },
}

const BETWEEN: State = State::Front([0; FRONT_BYTES_MAX], 0);

/// Reads frames.
pub(super) struct Frames {
    stream: RecvStream,
    /// Read from the stream, and not looked at yet.
    read: Bytes,
    state: State,
    ended: bool,
}

impl Frames {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, read: Bytes::new(), state: BETWEEN, ended: false }
    }

    /// `read`: what was read of it before.
    pub(super) fn with(stream: RecvStream, read: Bytes) -> Self {
        Self { read, ..Self::new(stream) }
    }

    /// Asks the client to send nothing more.
    pub(super) fn stop(&mut self, code: Code) {
        // A stream that ended already needs no word.
        let _ = self.stream.stop(code.into());
    }

    /// Whether the stream came to its end.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The next piece; nothing at the stream's end. `take` says what is done with a frame by its kind.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        take: impl Fn(u64) -> Take,
    ) -> Poll<Result<Option<Piece>, Fault>> {
        loop {
            if let Some(piece) = self.advance(&take)? {
                return Poll::Ready(Ok(Some(piece)));
            }
            if self.read.is_empty() && !ready!(self.poll_read(cx))? {
                self.ended = true;
                // "When a stream terminates cleanly, if the last frame on the stream was truncated, this MUST be treated as a connection error
                // of type H3_FRAME_ERROR" (§7.1).
                let whole = matches!(self.state, State::Front(_, 0));
                let cut = Fault::Connection(Code::Frame, "a stream ends within a frame");
                return Poll::Ready(if whole { Ok(None) } else { Err(cut) });
            }
        }
    }

    /// Whether there is more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        // It waits in the stream, not in what is made anew here.
        let chunk = ready!(pin!(self.stream.read_chunk(READ_BYTES_MAX, true)).poll(cx));
        Poll::Ready(match chunk {
            Ok(Some(chunk)) => {
                self.read = chunk.bytes;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(gone) => Err(Fault::Gone(gone)),
        })
    }

    /// Goes through what was read until there is a piece, or nothing more.
    fn advance(&mut self, take: &impl Fn(u64) -> Take) -> Result<Option<Piece>, Fault> {
        loop {
            match &mut self.state {
                State::Front(octets, length) => {
                    let Some(octet) = self.read.first().copied() else { return Ok(None) };
                    self.read = self.read.slice(1..);
                    octets[*length] = octet;
                    *length += 1;
                    let Some((kind, size)) = front(&octets[..*length]) else { continue };
                    if let Some(piece) = self.enter(kind, size, take(kind))? {
                        return Ok(Some(piece));
                    }
                }
                State::Data(0) | State::Skip(0) => self.state = BETWEEN,
                State::Data(left) | State::Skip(left) => {
                    if self.read.is_empty() {
                        return Ok(None);
                    }
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(self.read.len());
                    let data = self.read.split_to(most);
                    *left -= most as u64;
                    if matches!(self.state, State::Data(_)) {
                        return Ok(Some(Piece::Data(data)));
                    }
                }
                State::Whole { kind, left, read } => {
                    let most = (*left).min(self.read.len());
                    read.extend_from_slice(&self.read.split_to(most));
                    *left -= most;
                    if *left > 0 {
                        return Ok(None);
                    }
                    let piece = Piece::Whole(*kind, std::mem::take(read));
                    self.state = BETWEEN;
                    return Ok(Some(piece));
                }
            }
        }
    }

    fn enter(&mut self, kind: u64, size: u64, take: Take) -> Result<Option<Piece>, Fault> {
        self.state = match take {
            Take::Refuse(code) => return Err(Fault::Connection(code, "a frame that must not be there")),
            Take::Skip => State::Skip(size),
            Take::Data if size == 0 => {
                self.state = BETWEEN;
                return Ok(Some(Piece::Data(Bytes::new())));
            }
            Take::Data => State::Data(size),
            Take::Whole(max) => match usize::try_from(size).ok().filter(|size| *size <= max) {
                Some(left) => State::Whole { kind, left, read: Vec::new() },
                None => return Ok(Some(Piece::TooLong(kind))),
            },
        };
        Ok(None)
    }
}

/// Kind and length of a frame, once both are there.
fn front(octets: &[u8]) -> Option<(u64, u64)> {
    let (kind, used) = integer(octets)?;
    let (size, _) = integer(&octets[used..])?;
    Some((kind, size))
}

/// An integer of QUIC, and how many octets it takes; nothing where it is not whole (RFC 9000 §16).
pub(super) fn integer(octets: &[u8]) -> Option<(u64, usize)> {
    let first = *octets.first()?;
    let length = 1 << (first >> 6);
    let rest = octets.get(1..length)?;
    let number = rest.iter().fold(u64::from(first & 0x3f), |number, octet| number << 8 | u64::from(*octet));
    Some((number, length))
}

/// Appends an integer of QUIC; what is larger than one can be becomes the largest.
pub(super) fn put(out: &mut Vec<u8>, number: u64) {
    match number {
        0..=0x3f => out.push(number as u8),
        0x40..=0x3fff => out.extend_from_slice(&(number as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => out.extend_from_slice(&(number as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(number.min((1 << 62) - 1) | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Appends a frame's kind and length.
pub(super) fn put_front(out: &mut Vec<u8>, kind: u64, size: usize) {
    put(out, kind);
    put(out, size as u64);
}

/// A frame.
pub(super) fn frame(kind: u64, octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + FRONT_BYTES_MAX);
    put_front(&mut out, kind, octets.len());
    out.extend_from_slice(octets);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_the_rfc() {
        // RFC 9000 Appendix A.1.
        for (number, octets) in [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ] {
            let mut out = Vec::new();
            put(&mut out, number);
            assert_eq!(out, octets);
            assert_eq!(integer(octets), Some((number, octets.len())));
            assert_eq!(integer(&octets[..octets.len() - 1]), None);
        }
        let mut largest = Vec::new();
        put(&mut largest, u64::MAX);
        assert_eq!(integer(&largest), Some(((1 << 62) - 1, 8)));
    }
}
