//! Heads of requests and answers, read strictly: offsets into the buffer, nothing is copied.
//!
//! In: octets. Out: a [`Head`], that more is needed, or why it is refused. Sources: RFC 9112 §2 to §6, RFC 9110 §5. Where the grammar lets
//! recipients be lenient (bare LF, folded lines, space around names, several lengths) we are not: what others may read otherwise is refused.

use std::mem::MaybeUninit;
use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

/// A head has at most so many fields, whatever limits say.
pub(crate) const FIELDS_MAX: usize = 256;

/// One field, by its place.
#[derive(Debug, Clone, Copy)]
struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

/// Why a head is refused: the status, and what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bad(pub(crate) u16, pub(crate) &'static str);

/// How a body is framed (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    /// Until the connection ends; answers alone.
    Close,
}

/// A head that was read. `bytes` in its methods are those that it was read from.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// Of a request; of an answer empty.
    method: (u32, u32),
    target: (u32, u32),
    /// Of an answer.
    pub(crate) status: u16,
    /// Minor version: 0 or 1.
    pub(crate) minor: u8,
    fields: Vec<Field>,
    /// How long it is.
    pub(crate) len: usize,
}

fn at(bytes: &[u8], part: &[u8]) -> (u32, u32) {
    // `part` is a slice of `bytes`: what lies between their beginnings is its place.
    let start = part.as_ptr().addr().saturating_sub(bytes.as_ptr().addr());
    let place = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (place(start), place(start + part.len()))
}

fn range(at: (u32, u32)) -> Range<usize> {
    at.0 as usize..at.1 as usize
}

impl Head {
    /// Reads the head of a request; `None`: more is needed. `fields_max`: how many fields it may have.
    ///
    /// # Errors
    /// The request is to be answered with that, and its connection closed.
    pub(crate) fn request(&mut self, bytes: &[u8], fields_max: usize) -> Result<Option<()>, Bad> {
        let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let room = &mut room[..fields_max.min(FIELDS_MAX)];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, room) {
            Ok(httparse::Status::Partial) => return lone_line_feed(bytes).map(|()| None),
            Ok(httparse::Status::Complete(len)) => self.len = len,
            Err(error) => return Err(why(error)),
        }
        lone_line_feed(&bytes[..self.len])?;
        self.method = at(bytes, request.method.unwrap_or_default().as_bytes());
        self.target = at(bytes, request.path.unwrap_or_default().as_bytes());
        (self.status, self.minor) = (0, request.version.unwrap_or_default());
        self.take(bytes, request.headers);
        Ok(Some(()))
    }

    /// Reads the head of an answer; `None`: more is needed. `fields_max`: how many fields it may have.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn answer(&mut self, bytes: &[u8], fields_max: usize) -> Result<Option<()>, Bad> {
        let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let room = &mut room[..fields_max.min(FIELDS_MAX)];
        let mut answer = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut answer, bytes, room) {
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(len)) => self.len = len,
            Err(error) => return Err(Bad(502, why_answer(error))),
        }
        if lone_line_feed(&bytes[..self.len]).is_err() {
            return Err(Bad(502, "a line ends in LF alone"));
        }
        (self.method, self.target) = ((0, 0), (0, 0));
        (self.status, self.minor) = (answer.code.unwrap_or_default(), answer.version.unwrap_or_default());
        self.take(bytes, answer.headers);
        Ok(Some(()))
    }

    fn take(&mut self, bytes: &[u8], fields: &[httparse::Header<'_>]) {
        self.fields.clear();
        let places = fields.iter().map(|f| Field { name: at(bytes, f.name.as_bytes()), value: at(bytes, f.value) });
        self.fields.extend(places);
    }

    /// The method.
    pub(crate) fn method<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[range(self.method)]
    }

    /// The target as it was written.
    pub(crate) fn target<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[range(self.target)]
    }

    /// Every field, as it was written.
    pub(crate) fn fields<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.iter().map(|f| (&bytes[range(f.name)], &bytes[range(f.value)]))
    }

    /// The values of a field; `name` in lower case.
    pub(crate) fn values<'a>(&'a self, bytes: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields(bytes).filter(move |(n, _)| is(n, name)).map(|(_, value)| value)
    }

    /// The words of the Connection fields.
    pub(crate) fn connection<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let values = self.values(bytes, "connection");
        values.flat_map(|value| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
    }

    /// Whether the connection may be used again afterwards (RFC 9112 §9.3).
    pub(crate) fn persists(&self, bytes: &[u8]) -> bool {
        let says = |word: &[u8]| self.connection(bytes).any(|w| w.eq_ignore_ascii_case(word));
        !says(b"close") && (self.minor == 1 || says(b"keep-alive"))
    }

    /// How the body of a request is framed.
    ///
    /// # Errors
    /// In a way that others may read otherwise.
    pub(crate) fn request_framing(&self, bytes: &[u8]) -> Result<Framing, Bad> {
        match self.framing(bytes)? {
            Some(Framing::Chunked) if self.minor == 0 => Err(Bad(400, "HTTP/1.0 has no transfer codings")),
            framing => Ok(framing.unwrap_or(Framing::None)),
        }
    }

    /// How the body of the answer to a request is framed; `head`: the request was HEAD.
    ///
    /// # Errors
    /// In a way that others may read otherwise.
    pub(crate) fn answer_framing(&self, bytes: &[u8], head: bool) -> Result<Framing, Bad> {
        let framing = self.framing(bytes).map_err(|Bad(_, why)| Bad(502, why))?;
        Ok(match self.status {
            100..=199 | 204 | 304 => Framing::None,
            _ if head => Framing::None,
            _ => framing.unwrap_or(Framing::Close),
        })
    }

    fn framing(&self, bytes: &[u8]) -> Result<Option<Framing>, Bad> {
        let (mut length, mut chunked) = (None, false);
        for (name, value) in self.fields(bytes) {
            if name.len() == 14 && is(name, "content-length") {
                if length.is_some() {
                    return Err(Bad(400, "more than one Content-Length"));
                }
                length = Some(decimal(value).ok_or(Bad(400, "Content-Length is no number"))?);
            } else if name.len() == 17 && is(name, "transfer-encoding") {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Bad(400, "Transfer-Encoding is another than chunked"));
                }
                chunked = true;
            }
        }
        match (length, chunked) {
            (Some(_), true) => Err(Bad(400, "both Content-Length and Transfer-Encoding")),
            (Some(length), false) => Ok(Some(Framing::Length(length))),
            (None, true) => Ok(Some(Framing::Chunked)),
            (None, false) => Ok(None),
        }
    }

    /// All fields, owned.
    ///
    /// # Errors
    /// One of them is none.
    pub(crate) fn to_map(&self, bytes: &[u8]) -> Result<HeaderMap, Bad> {
        let mut map = HeaderMap::with_capacity(self.fields.len() + 4);
        for (name, value) in self.fields(bytes) {
            let bad = Bad(400, "a header is none");
            let name = HeaderName::from_bytes(name).map_err(|_| bad)?;
            map.append(name, HeaderValue::from_bytes(value).map_err(|_| bad)?);
        }
        Ok(map)
    }
}

/// Whether a field's name is `name`, which is in lower case.
pub(crate) fn is(written: &[u8], name: &str) -> bool {
    written.len() == name.len() && written.eq_ignore_ascii_case(name.as_bytes())
}

/// `1*DIGIT` and nothing else.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value.iter().try_fold(0_u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// "A recipient MAY recognize a single LF as a line terminator" (RFC 9112 §2.2): those who do and those who don't read two requests.
fn lone_line_feed(bytes: &[u8]) -> Result<(), Bad> {
    let lone = bytes.first() == Some(&b'\n')
        || bytes.iter().zip(bytes.iter().skip(1)).fold(false, |lone, (a, b)| lone | ((*b == b'\n') & (*a != b'\r')));
    if lone { Err(Bad(400, "a line ends in LF alone")) } else { Ok(()) }
}

/// The same of an answer, whose fault is another's.
fn why_answer(error: httparse::Error) -> &'static str {
    match why(error) {
        Bad(_, "that is no request") => "that is no head",
        Bad(_, why) => why,
    }
}

fn why(error: httparse::Error) -> Bad {
    match error {
        httparse::Error::TooManyHeaders => Bad(431, "too many headers"),
        httparse::Error::Version => Bad(400, "the version is not 1.0 or 1.1"),
        httparse::Error::HeaderName => Bad(400, "a header's name is none"),
        httparse::Error::HeaderValue => Bad(400, "a header's value is none"),
        _ => Bad(400, "that is no request"),
    }
}

#[cfg(test)]
mod tests;
