//! The chunked coding, read octet by octet (RFC 9112 §7.1): where its data lies and where it ends.
//!
//! In: octets as they come. Out: pieces: data, framing, or the end. Whoever passes the octets on as they are passes on what was judged here, so
//! nothing is let through that anybody may read otherwise. Bounds: the length of a size line and of all trailers.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::head::Bad;

/// A size line with its extensions is at most this long.
const LINE_BYTES_MAX: usize = 256;
/// And all trailers together.
const TRAILER_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the size of the next chunk; how many digits there were.
    Size(u8),
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// In trailers, at the beginning of a line or within it.
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

/// How far the body was read.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    /// What is left of the chunk.
    left: u64,
    line: usize,
    trailer: Vec<u8>,
}

/// What octets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many are data.
    Data(usize),
    /// So many are not.
    Framing(usize),
    /// So many are not, and the body is at its end.
    End(usize),
}

const BAD: Bad = Bad(400, "the body's chunks are none");

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::Size(0), left: 0, line: 0, trailer: Vec::new() }
    }
}

impl Chunked {
    /// What the first of `bytes` are; nothing where there are none.
    ///
    /// # Errors
    /// They are no chunks.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece>, Bad> {
        if self.state == State::Data && !bytes.is_empty() {
            let n = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= n as u64;
            if self.left == 0 {
                self.state = State::DataCr;
            }
            return Ok(Some(Piece::Data(n)));
        }
        for (at, byte) in bytes.iter().enumerate() {
            self.state = self.step(*byte)?;
            match self.state {
                State::End => return Ok(Some(Piece::End(at + 1))),
                State::Data => return Ok(Some(Piece::Framing(at + 1))),
                _ => {}
            }
        }
        Ok(Some(bytes.len()).filter(|n| *n > 0).map(Piece::Framing))
    }

    /// How many octets of `bytes` belong to the body, and whether it is at its end then.
    ///
    /// # Errors
    /// They are no chunks.
    pub(crate) fn span(&mut self, bytes: &[u8]) -> Result<(usize, bool), Bad> {
        let mut at = 0;
        while let Some(piece) = self.next(&bytes[at..])? {
            match piece {
                Piece::Data(n) | Piece::Framing(n) => at += n,
                Piece::End(n) => return Ok((at + n, true)),
            }
        }
        Ok((at, false))
    }

    fn step(&mut self, byte: u8) -> Result<State, Bad> {
        Ok(match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => {
                // 2⁶⁰ is enough for anybody, and more than that overflows somewhere.
                if digits >= 15 {
                    return Err(BAD);
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                self.left = self.left * 16 + u64::from(digit);
                State::Size(digits + 1)
            }
            (State::Size(1..), b'\r') | (State::Extension, b'\r') => State::SizeEnd,
            (State::Size(1..), b';') => State::Extension,
            // Extensions are skipped; controls in them are what line ends are smuggled as.
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.line += 1;
                if self.line > LINE_BYTES_MAX {
                    return Err(Bad(400, "a chunk's extensions are too long"));
                }
                State::Extension
            }
            (State::SizeEnd, b'\n') => {
                self.line = 0;
                if self.left == 0 { State::TrailerStart } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0),
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::LastLf, b'\n') => State::End,
            (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                // A line that is folded continues another one for some.
                if self.state == State::TrailerStart && matches!(byte, b' ' | b'\t') {
                    return Err(BAD);
                }
                self.keep(byte)?;
                State::Trailer
            }
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => {
                self.keep(b'\n')?;
                self.trailer_line()?;
                State::TrailerStart
            }
            _ => return Err(BAD),
        })
    }

    fn keep(&mut self, byte: u8) -> Result<(), Bad> {
        if self.trailer.len() >= TRAILER_BYTES_MAX {
            return Err(Bad(400, "the trailers are too long"));
        }
        self.trailer.push(byte);
        Ok(())
    }

    /// Judges the trailer that was just read.
    fn trailer_line(&self) -> Result<(), Bad> {
        let line = self.trailer[..self.trailer.len() - 1].rsplit(|b| *b == b'\n').next().unwrap_or_default();
        field(line).map(|_| ())
    }

    /// The trailers; nothing where there are none.
    pub(crate) fn trailers(&self) -> Option<HeaderMap> {
        let lines = self.trailer.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let map: HeaderMap = lines.filter_map(|line| field(line).ok()).collect();
        (!map.is_empty()).then_some(map)
    }
}

/// A trailer.
fn field(line: &[u8]) -> Result<(HeaderName, HeaderValue), Bad> {
    let colon = line.iter().position(|b| *b == b':').ok_or(BAD)?;
    let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| BAD)?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).map_err(|_| BAD)?;
    if may_trail(&name) { Ok((name, value)) } else { Err(NO_TRAILER) }
}

/// What is said of a trailer that may not be one.
pub(crate) const NO_TRAILER: Bad = Bad(400, "a trailer that may not be one");

/// Whether a field may be a trailer: none that frames, routes, authenticates, modifies the request or says what its content is, for somebody
/// may put trailers among the headers (RFC 9110 §6.5.1).
pub(crate) fn may_trail(name: &HeaderName) -> bool {
    const NEVER: &[&str] = &[
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "max-forwards",
        "pragma",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name = name.as_str();
    !NEVER.contains(&name) && !["if-", "x-forwarded-"].iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of a body and what follows it, given in pieces of `n` octets.
    fn read(body: &[u8], n: usize) -> Result<(Vec<u8>, usize), Bad> {
        let (mut chunked, mut data, mut total) = (Chunked::default(), Vec::new(), 0);
        for part in body.chunks(n) {
            let mut at = 0;
            while let Some(piece) = chunked.next(&part[at..])? {
                match piece {
                    Piece::Data(n) => {
                        data.extend_from_slice(&part[at..at + n]);
                        at += n;
                    }
                    Piece::Framing(n) => at += n,
                    Piece::End(n) => return Ok((data, total + at + n)),
                }
            }
            total += part.len();
        }
        Err(Bad(0, "no end"))
    }

    #[test]
    fn data_is_found_however_it_comes_and_the_end_is_where_it_is() {
        for (body, data) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("5;a=b\r\nhello\r\n00\r\n\r\n", "hello"),
            ("1\r\nh\r\nA\r\n0123456789\r\n0\r\nx-a: b\r\nx-c: d\r\n\r\n", "h0123456789"),
            ("000000000000001\r\n\r\r\n0;x\r\n\r\n", "\r"),
        ] {
            let then = format!("{body}GET / HTTP/1.1\r\n");
            for n in 1..=then.len() {
                let found = read(then.as_bytes(), n);
                assert_eq!(found, Ok((data.as_bytes().to_vec(), body.len())), "{body:?} by {n}");
            }
        }
    }

    #[test]
    fn what_somebody_may_read_otherwise_is_refused() {
        for body in [
            "\r\n",
            ";x\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;a\r\r\nhello\r\n0\r\n\r\n",
            "5;a\0\r\nhello\r\n0\r\n\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\nx : y\r\n\r\n",
            "0\r\n x: y\r\n\r\n",
            "0\r\nx: y\r\n z\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\n\n",
            "0\r\nContent-Length: 5\r\n\r\n",
            "0\r\ntransfer-encoding: chunked\r\n\r\n",
            "0\r\nHost: b\r\n\r\n",
            "1000000000000000\r\n",
            "-1\r\n",
            "ZZ\r\nhello\r\n",
        ] {
            assert_eq!(read(body.as_bytes(), 3).map_err(|bad| bad.0), Err(400), "{body:?}");
        }
        for body in [format!("1;{}\r\n", "x".repeat(300)), format!("0\r\n{}", "x: y\r\n".repeat(4000))] {
            assert_eq!(read(body.as_bytes(), 1000).map_err(|bad| bad.0), Err(400));
        }
    }

    #[test]
    fn trailers_are_kept() {
        let mut chunked = Chunked::default();
        assert_eq!(chunked.span(b"0\r\nGrpc-Status: 0\r\nx-a:b\r\n\r\nrest"), Ok((28, true)));
        let trailers = chunked.trailers().unwrap();
        assert_eq!((&trailers["grpc-status"], &trailers["x-a"]), (&"0".parse().unwrap(), &"b".parse().unwrap()));
    }
}
