//! The OPT record: what a query's says, what the reply's says, and how large a reply may be. Pure.
//!
//! ```text
//!   query ── Opt::find ──► size, DO, cookie, …          reply ── ReplyOpt::write ──► reply with OPT
//! ```
//!
//! In: octets. Out: an [`Opt`] that borrows from them; the OPT of a reply, exactly if the query had one, cut to what fits. Neither reading
//! nor writing an OPT allocates. Never panics on what comes. Sources: RFC 6891 (EDNS), 5001 (NSID), 7828 (keep-alive), 7830 and 8467
//! (padding), 7873 (cookies), 8914 (extended errors).

use bytes::BufMut;

use crate::answer::Ede;
use crate::forward::{TRAIL, UDP_BYTES_MAX};
use crate::guard::COOKIE_BYTES;
use crate::names::after_name;

mod code {
    pub(super) const NSID: u16 = 3;
    pub(super) const SUBNET: u16 = 8;
    pub(super) const COOKIE: u16 = 10;
    pub(super) const KEEPALIVE: u16 = 11;
    pub(super) const PADDING: u16 = 12;
    pub(super) const EDE: u16 = 15;
}

const HEADER_BYTES: usize = 12;
/// Root, type, class, time to live, length.
const OPT_BYTES: usize = 11;
const OPTION_BYTES: usize = 4;
const OPT_TYPE: u16 = 41;
const DNSSEC_OK: u32 = 0x8000;
/// Without EDNS (RFC 1035 §2.3.4).
const PLAIN_BYTES_MAX: u16 = 512;
/// Longer texts of extended errors are cut.
const EDE_TEXT_MAX: usize = 160;
/// RFC 8467 §4.1: "servers pad … to a multiple of 468 octets".
const PADDED_TO: usize = 468;

/// The packet breaks a rule of the OPT record: FORMERR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A query's OPT. Options and flags that we don't know are not in it: they are ignored (RFC 6891 §6.1.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Opt<'a> {
    pub(crate) version: u8,
    /// DO.
    pub(crate) dnssec: bool,
    /// The largest datagram that the client takes.
    pub(crate) payload: u16,
    pub(crate) nsid: bool,
    pub(crate) keepalive: bool,
    pub(crate) padding: bool,
    /// It was forwarded to us by one of ours.
    pub(crate) trail: bool,
    pub(crate) cookie: Option<&'a [u8]>,
    /// The client's network (RFC 7871), as it came.
    pub(crate) subnet: Option<&'a [u8]>,
}

impl<'a> Opt<'a> {
    /// The OPT of a packet; `None` where there is none.
    ///
    /// # Errors
    /// More than one, an owner that is not the root (RFC 6891 §6.1.1), options or records that end too late.
    pub(crate) fn find(packet: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let count = |at: usize| packet.get(at..at + 2).map(|c| usize::from(u16::from_be_bytes([c[0], c[1]])));
        let (Some(questions), Some(before), Some(also), Some(additionals)) = (count(4), count(6), count(8), count(10))
        else {
            return Err(Malformed);
        };
        let mut at = HEADER_BYTES;
        for _ in 0..questions {
            at = after_name(packet, at).ok_or(Malformed)? + 4;
        }
        let mut found = None;
        for record in 0..before + also + additionals {
            let owner = at;
            at = after_name(packet, at).ok_or(Malformed)?;
            let fixed = packet.get(at..at + 10).ok_or(Malformed)?;
            let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
            at += 10;
            let data = packet.get(at..at + usize::from(word(8))).ok_or(Malformed)?;
            at += data.len();
            if word(0) != OPT_TYPE {
                continue;
            }
            if found.is_some() || packet[owner] != 0 || record < before + also {
                return Err(Malformed);
            }
            let ttl = u32::from(word(4)) << 16 | u32::from(word(6));
            found = Some(Self::read(word(2), ttl, data)?);
        }
        Ok(found)
    }

    /// An OPT by its class, time to live and data.
    ///
    /// # Errors
    /// An option that ends after the data.
    pub(crate) fn read(class: u16, ttl: u32, data: &'a [u8]) -> Result<Self, Malformed> {
        let version = (ttl >> 16 & 0xff) as u8;
        let mut opt = Self { version, dnssec: ttl & DNSSEC_OK != 0, payload: class, ..Self::default() };
        if version > 0 {
            // What the options of another version look like we don't know.
            return Ok(opt);
        }
        let mut rest = data;
        while !rest.is_empty() {
            let (head, after) = rest.split_first_chunk::<OPTION_BYTES>().ok_or(Malformed)?;
            let (code, length) = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]));
            let (value, after) = after.split_at_checked(usize::from(length)).ok_or(Malformed)?;
            rest = after;
            match code {
                code::NSID => opt.nsid = true,
                code::KEEPALIVE => opt.keepalive = true,
                code::PADDING => opt.padding = true,
                TRAIL => opt.trail = true,
                // RFC 7873 §5.2: "If multiple COOKIE options are found, all but the first are ignored".
                code::COOKIE => opt.cookie = opt.cookie.or(Some(value)),
                code::SUBNET => opt.subnet = opt.subnet.or(Some(value)),
                _ => {}
            }
        }
        Ok(opt)
    }
}

/// How large a reply may be.
pub(crate) fn limit(opt: Option<&Opt<'_>>, stream: bool) -> usize {
    let udp = opt.map_or(PLAIN_BYTES_MAX, |opt| opt.payload.clamp(PLAIN_BYTES_MAX, UDP_BYTES_MAX));
    usize::from(if stream { u16::MAX } else { udp })
}

/// Extended errors (RFC 8914).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edes<'a> {
    /// As they were decided.
    Made(&'a [Ede]),
    /// As octets: code, length and text of each.
    Kept(&'a [u8]),
}

impl Default for Edes<'_> {
    fn default() -> Self {
        Self::Made(&[])
    }
}

impl<'a> Edes<'a> {
    /// As octets; the texts are cut to what is ever sent.
    pub(crate) fn keep(edes: &[Ede]) -> Vec<u8> {
        let mut octets = Vec::new();
        for ede in edes {
            let text = &ede.text[..cut(&ede.text, EDE_TEXT_MAX)];
            octets.put_u16(ede.code);
            octets.put_u16(text.len() as u16);
            octets.put_slice(text.as_bytes());
        }
        octets
    }

    /// Code and text of each.
    fn iter(self) -> impl Iterator<Item = (u16, &'a str)> {
        let (made, mut kept) = match self {
            Self::Made(made) => (made, &[][..]),
            Self::Kept(kept) => (&[][..], kept),
        };
        let kept = std::iter::from_fn(move || {
            let (head, rest) = kept.split_first_chunk::<4>()?;
            let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
            kept = rest;
            Some((u16::from_be_bytes([head[0], head[1]]), std::str::from_utf8(text).unwrap_or_default()))
        });
        made.iter().map(|ede| (ede.code, ede.text.as_str())).chain(kept)
    }
}

/// A reply's OPT.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReplyOpt<'a> {
    /// The upper eight bits of the code (RFC 6891 §6.1.3).
    pub(crate) rcode_high: u8,
    /// RFC 3225 §3: the bit is copied.
    pub(crate) dnssec: bool,
    pub(crate) cookie: Option<[u8; COOKIE_BYTES]>,
    /// The client's network and how much of it the answer is for, encoded (RFC 7871 §7.2.1).
    pub(crate) subnet: Option<&'a [u8]>,
    /// How long an idle connection stays open, in tenths of a second.
    pub(crate) keepalive: Option<u16>,
    pub(crate) nsid: Option<&'a [u8]>,
    pub(crate) edes: Edes<'a>,
    /// Up to a multiple of 468 octets; on encrypted transports only.
    pub(crate) padded: bool,
}

impl ReplyOpt<'_> {
    /// What it takes at least: that without which the reply would be another.
    pub(crate) fn bytes_min(&self) -> usize {
        let cookie = self.cookie.map_or(0, |c| OPTION_BYTES + c.len());
        OPT_BYTES + cookie + self.subnet.map_or(0, |s| OPTION_BYTES + s.len())
    }

    /// Writes it after `used` octets of a message that may have `limit`; what does not fit is left out: first padding, then the texts of
    /// extended errors, then the others. The caller has kept [`Self::bytes_min`] free, and counts it in the header.
    pub(crate) fn write(&self, used: usize, limit: usize, out: &mut impl BufMut) {
        let mut room = limit.saturating_sub(used + self.bytes_min());
        let mut take = |wanted: usize| {
            let fits = wanted <= room;
            room -= if fits { wanted } else { 0 };
            fits
        };
        let keepalive = self.keepalive.filter(|_| take(OPTION_BYTES + 2));
        let edes = self.edes.iter().take_while(|_| take(OPTION_BYTES + 2)).count();
        let nsid = self.nsid.filter(|nsid| take(OPTION_BYTES + nsid.len()));
        let texts_max = room;
        let fitting = |left: &mut usize, text: &str| {
            let length = cut(text, EDE_TEXT_MAX.min(*left));
            *left -= length;
            length
        };
        let mut left = texts_max;
        let texts: usize = self.edes.iter().take(edes).map(|(_, text)| fitting(&mut left, text)).sum();
        let mut length = self.bytes_min() - OPT_BYTES
            + keepalive.map_or(0, |_| OPTION_BYTES + 2)
            + nsid.map_or(0, |n| OPTION_BYTES + n.len())
            + edes * (OPTION_BYTES + 2)
            + texts;
        let padding = self.padding(used + OPT_BYTES + length, limit);
        length += padding.map_or(0, |p| OPTION_BYTES + p);

        out.put_u8(0);
        out.put_u16(OPT_TYPE);
        out.put_u16(UDP_BYTES_MAX);
        out.put_u32(u32::from(self.rcode_high) << 24 | if self.dnssec { DNSSEC_OK } else { 0 });
        out.put_u16(length as u16);
        if let Some(cookie) = self.cookie {
            put(out, code::COOKIE, &cookie);
        }
        if let Some(subnet) = self.subnet {
            put(out, code::SUBNET, subnet);
        }
        if let Some(tenths) = keepalive {
            put(out, code::KEEPALIVE, &tenths.to_be_bytes());
        }
        if let Some(nsid) = nsid {
            put(out, code::NSID, nsid);
        }
        let mut left = texts_max;
        for (code, text) in self.edes.iter().take(edes) {
            let length = fitting(&mut left, text);
            out.put_u16(code::EDE);
            out.put_u16(2 + length as u16);
            out.put_u16(code);
            out.put_slice(&text.as_bytes()[..length]);
        }
        if let Some(padding) = padding {
            out.put_u16(code::PADDING);
            out.put_u16(padding as u16);
            out.put_bytes(0, padding);
        }
    }

    /// Octets of padding that fill up a message of `used` octets.
    fn padding(&self, used: usize, limit: usize) -> Option<usize> {
        let with = used + OPTION_BYTES;
        let padded = with.next_multiple_of(PADDED_TO).min(limit);
        (self.padded && with <= limit).then(|| padded - with)
    }
}

fn put(out: &mut impl BufMut, code: u16, value: &[u8]) {
    out.put_u16(code);
    out.put_u16(value.len() as u16);
    out.put_slice(value);
}

/// How many octets of `text` fit into `max`, whole characters only.
fn cut(text: &str, max: usize) -> usize {
    if text.len() <= max { text.len() } else { (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0) }
}

/// Leaves the question alone of a reply, with TC and the OPT: what goes to a client that must come back by TCP or with a cookie.
pub(crate) fn truncate(reply: &mut Vec<u8>, opt: Option<&ReplyOpt<'_>>, limit: usize) {
    let questions = reply.get(4..6).map_or(0, |c| u16::from_be_bytes([c[0], c[1]]));
    let mut at = HEADER_BYTES;
    for _ in 0..questions {
        at = after_name(reply, at).map_or(reply.len(), |at| at + 4);
    }
    if reply.len() < HEADER_BYTES {
        return;
    }
    reply.truncate(at);
    reply[2] |= 0x02;
    reply[6..HEADER_BYTES].fill(0);
    append(reply, opt, limit);
}

/// Appends the OPT and counts it.
pub(crate) fn append(octets: &mut Vec<u8>, opt: Option<&ReplyOpt<'_>>, limit: usize) {
    let Some(opt) = opt.filter(|_| octets.len() >= HEADER_BYTES) else { return };
    opt.write(octets.len(), limit, octets);
    let count = u16::from_be_bytes([octets[10], octets[11]]).saturating_add(1);
    octets[10..HEADER_BYTES].copy_from_slice(&count.to_be_bytes());
}

#[cfg(test)]
mod tests;
