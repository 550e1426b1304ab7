//! HTTP/1.1 as everybody reads it: the grammar of RFC 9112 without anything that recipients may be lenient with, and written for tests
//! alone, so that it shares no mistake with what it judges.
//!
//! In: octets. Out: the first request, that it is not whole, or why readers would differ.

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) minor: u8,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
    /// Whether its chunks have extensions.
    pub(crate) extended: bool,
}

impl Request {
    /// The values of a field.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }
}

/// What octets begin with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A request of that length.
    Whole(Box<Request>, usize),
    /// The beginning of one.
    More,
    /// Nothing that everybody reads alike.
    Bad(&'static str),
}

/// Reads the first request.
pub(crate) fn read(octets: &[u8]) -> Read {
    match first(octets) {
        Ok(Some((request, len))) => Read::Whole(Box::new(request), len),
        Ok(None) => Read::More,
        Err(why) => Read::Bad(why),
    }
}

type Found<T> = Result<Option<T>, &'static str>;

fn first(octets: &[u8]) -> Found<(Request, usize)> {
    let mut at = 0;
    while octets[at..].starts_with(b"\r\n") {
        at += 2;
    }
    let Some(first) = line(octets, &mut at)? else { return Ok(None) };
    let words: Vec<&[u8]> = first.split(|b| *b == b' ').collect();
    let [method, target, version] = words[..] else { return Err("a request line is three words") };
    if !is_token(method) || target.is_empty() || !target.iter().all(|b| (0x21..=0x7e).contains(b)) {
        return Err("a method is a token and a target visible");
    }
    let minor = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        _ => return Err("the version is 1.0 or 1.1"),
    };
    let Some(fields) = fields(octets, &mut at)? else { return Ok(None) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (method, target) = (text(method), text(target));
    let mut request =
        Request { method, target, minor, fields, body: Vec::new(), trailers: Vec::new(), extended: false };
    let lengths: Vec<&[u8]> = request.values("content-length").collect();
    let codings: Vec<&[u8]> = request.values("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => {}
        ([length], []) => {
            let length = decimal(length).ok_or("a length is digits")?;
            let Some(body) = octets.get(at..at.saturating_add(length)) else { return Ok(None) };
            request.body = body.to_vec();
            at += length;
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && minor == 1 => {
            if chunks(octets, &mut at, &mut request)?.is_none() {
                return Ok(None);
            }
        }
        _ => return Err("a body has one framing"),
    }
    Ok(Some((request, at)))
}

/// The next line without its end; nothing where that is still to come.
fn line<'a>(octets: &'a [u8], at: &mut usize) -> Found<&'a [u8]> {
    let rest = &octets[*at..];
    let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
        // A CR may be the beginning of a line end.
        let known = rest.strip_suffix(b"\r").unwrap_or(rest);
        let lone = known.iter().any(|b| matches!(b, b'\r' | b'\n'));
        return if lone { Err("a line ends in CR LF") } else { Ok(None) };
    };
    let line = &rest[..end];
    if line.iter().any(|b| matches!(b, b'\r' | b'\n')) {
        return Err("a line ends in CR LF");
    }
    *at += end + 2;
    Ok(Some(line))
}

fn fields(octets: &[u8], at: &mut usize) -> Found<Vec<(String, Vec<u8>)>> {
    let mut fields = Vec::new();
    loop {
        let Some(line) = line(octets, at)? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(fields));
        }
        let colon = line.iter().position(|b| *b == b':').ok_or("a field has a colon")?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) {
            return Err("a field's name is a token");
        }
        if !value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..)) {
            return Err("a field's value has no controls");
        }
        fields.push((String::from_utf8_lossy(name).into_owned(), value.trim_ascii().to_vec()));
    }
}

fn chunks(octets: &[u8], at: &mut usize, request: &mut Request) -> Found<()> {
    loop {
        let Some(line) = line(octets, at)? else { return Ok(None) };
        let (size, extension) = match line.iter().position(|b| *b == b';') {
            Some(semicolon) => (&line[..semicolon], &line[semicolon + 1..]),
            None => (line, &b""[..]),
        };
        request.extended |= size.len() < line.len();
        if size.is_empty() || size.len() > 15 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err("a chunk's size is hexadecimal digits");
        }
        if !extension.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..)) {
            return Err("a chunk's extension has no controls");
        }
        let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
        if size == 0 {
            let Some(trailers) = fields(octets, at)? else { return Ok(None) };
            request.trailers = trailers;
            return Ok(Some(()));
        }
        let Some(data) = octets.get(*at..at.saturating_add(size)) else { return Ok(None) };
        match octets.get(*at + size..*at + size + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err("a chunk's data ends in CR LF"),
            None => return Ok(None),
        }
        request.body.extend_from_slice(data);
        *at += size + 2;
    }
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn decimal(value: &[u8]) -> Option<usize> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// Why a request is not as a gateway should write one: in one form, with nothing of its neighbour in it.
pub(crate) fn unlike_ours(request: &Request) -> Option<&'static str> {
    const HOP: &[&str] = &["keep-alive", "proxy-connection", "http2-settings"];
    const NEVER: &[&str] = &[
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "authorization",
        "cookie",
        "content-type",
        "content-encoding",
        "content-range",
        "expect",
    ];
    let has = |names: &[&str], fields: &[(String, Vec<u8>)]| {
        fields.iter().any(|(name, _)| names.iter().any(|n| name.eq_ignore_ascii_case(n)))
    };
    let framings = request.values("content-length").chain(request.values("transfer-encoding")).count();
    Some(match () {
        () if request.minor != 1 => "it is not of HTTP/1.1",
        () if request.values("host").count() != 1 => "it has not one Host",
        () if framings > 1 => "it has two framings",
        () if request.extended => "its chunks have extensions",
        () if !switches(request) => "it has Connection, or Upgrade, and wants no single protocol",
        () if has(HOP, &request.fields) => "it has a field of its neighbour",
        () if has(NEVER, &request.trailers) => "it has a trailer that may not be one",
        () if request.fields.iter().any(|(name, _)| name.contains('_')) => "a field's name has an underscore",
        () if request.values("x-forwarded-for").count() != 1 => "it says not once who asks",
        () if !request.target.starts_with('/') && request.target != "*" => "its target is none of an origin",
        () => return None,
    })
}

/// Whether Connection and Upgrade are not there, or say that one protocol is wanted.
fn switches(request: &Request) -> bool {
    let values =
        |name| request.values(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>();
    match (&values("connection")[..], &values("upgrade")[..]) {
        ([], []) => true,
        ([connection], [protocol]) => {
            connection == "upgrade" && protocol.split('/').all(|part| is_token(part.as_bytes()))
        }
        _ => false,
    }
}
