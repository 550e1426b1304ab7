//! A signed zone as a file, taken from our own transfer: the peers serve the signatures that we made.
//!
//! In: our server, a zone. Out: its master file with what signing added, in the presentation formats of RFC 4034; types within are numbers.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::Result;
use crate::lanes::message;
use crate::names::show;
use crate::packet::Question;
use crate::zones::Zone;

const SOA: u16 = 6;
/// RRSIG, NSEC, DNSKEY, CDS, CDNSKEY.
const SIGNING: &[u16] = &[46, 47, 48, 59, 60];
const AXFR: u16 = 252;

/// The zone as it is transferred.
pub(crate) fn file(server: SocketAddr, zone: &Zone) -> Result<String> {
    let question = Question { name: zone.apex.clone(), kind: AXFR, class: 1, ..Question::default() };
    let packet = question.packet();
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&(packet.len() as u16).to_be_bytes())?;
    stream.write_all(&packet)?;
    let (mut file, mut heads) = (zone.file.clone(), 0);
    while heads < 2 {
        let octets = message(&mut stream).ok_or("the transfer ends too early")?;
        let records = crate::reply::records(&octets).ok_or("a message of the transfer can't be read")?;
        if records.is_empty() {
            return Err(format!("no transfer of {}", zone.apex.text()).into());
        }
        for record in records {
            heads += usize::from(record.kind == SOA);
            if heads == 2 {
                break;
            }
            if !SIGNING.contains(&record.kind) {
                continue;
            }
            let (word, text) = text(record.kind, &record.data).ok_or("a record of the transfer can't be read")?;
            file += &format!("{} {} IN {word} {text}\n", show(&record.name), record.ttl);
        }
    }
    Ok(file)
}

/// The word of a type of [`SIGNING`], and its data as text.
fn text(kind: u16, data: &[u8]) -> Option<(&'static str, String)> {
    let word = |at: usize| Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?));
    let key = || Some(format!("{} {} {} {}", word(0)?, data.get(2)?, data.get(3)?, STANDARD.encode(data.get(4..)?)));
    Some(match kind {
        46 => {
            let date = |at: usize| {
                let time = Timestamp::from_second(i64::from(long(at)?)).ok()?;
                Some(time.strftime("%Y%m%d%H%M%S").to_string())
            };
            let signer = name(data.get(18..)?)?;
            let signature = STANDARD.encode(data.get(18 + signer..)?);
            let (numbers, times) =
                (format!("TYPE{} {} {}", word(0)?, data.get(2)?, data.get(3)?), [date(8)?, date(12)?]);
            let signer = show(data.get(18..18 + signer)?);
            ("RRSIG", format!("{numbers} {} {} {} {} {signer} {signature}", long(4)?, times[0], times[1], word(16)?))
        }
        47 => {
            let next = name(data)?;
            ("NSEC", format!("{} {}", show(data.get(..next)?), types(data.get(next..)?)?.join(" ")))
        }
        48 => ("DNSKEY", key()?),
        60 => ("CDNSKEY", key()?),
        _ => {
            let digest: String = data.get(4..)?.iter().map(|o| format!("{o:02x}")).collect();
            ("CDS", format!("{} {} {} {digest}", word(0)?, data.get(2)?, data.get(3)?))
        }
    })
}

/// How long the name is that octets begin with.
fn name(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    while *octets.get(at)? != 0 {
        at += 1 + usize::from(*octets.get(at)?);
    }
    Some(at + 1)
}

/// The types of a bit map (RFC 4034 §4.1.2).
fn types(mut map: &[u8]) -> Option<Vec<String>> {
    let mut types = Vec::new();
    while let Some((head, rest)) = map.split_first_chunk::<2>() {
        let bits = rest.get(..usize::from(head[1]))?;
        for n in (0..bits.len() * 8).filter(|n| bits[n / 8] & 0x80 >> (n % 8) != 0) {
            types.push(format!("TYPE{}", usize::from(head[0]) * 256 + n));
        }
        map = &rest[bits.len()..];
    }
    Some(types)
}
