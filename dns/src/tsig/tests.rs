//! RFC 8945 against what another implementation signs, and every way in which a signature is wrong.

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::{RecordType, TSigner};

use super::*;

const SECRET: &str = "c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g=";
const NOW: u64 = 1_800_000_000;

fn ring() -> Keyring {
    let mut ring = Keyring::default();
    for (name, algorithm) in [("k1.example", "hmac-sha256"), ("k2.example", "HMAC-SHA512.")] {
        assert!(ring.add(Key::new(name, algorithm, SECRET).unwrap()));
    }
    ring
}

/// A query that hickory signed.
fn query(
    name: &str,
    algorithm: TsigAlgorithm,
    secret: &str,
    at: u64,
) -> (Vec<u8>, Option<hickory_proto::rr::TSigVerifier>) {
    let signer = TSigner::new(crate::sign::decode(secret).unwrap(), algorithm, absolute(name).unwrap(), 300).unwrap();
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(absolute("Example.com").unwrap(), RecordType::AXFR));
    let verifier = message.finalize(&signer, at).unwrap();
    (message.to_vec().unwrap(), verifier)
}

fn reply(query: &[u8]) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.queries.clone_from(&query.queries);
    message.to_vec().unwrap()
}

/// RFC 8945 §4.2 and §4.3.2: who passes a message on may give it another id; the signature is over the one that it had.
#[test]
fn what_somebody_passed_on_with_another_id_is_answered_to_the_one_who_signed() {
    let (mut octets, verifier) = query("k1.example", TsigAlgorithm::HmacSha256, SECRET, NOW);
    octets[..2].copy_from_slice(&[0xbe, 0xef]);
    let Peeled::Signed(message, mut session) = peel(&octets, &ring(), NOW) else { panic!("refused") };
    let mut plain = reply(&message);
    plain[..2].copy_from_slice(&[0xbe, 0xef]);
    let mut signed = session.sign(plain, NOW);
    assert_eq!(signed[..2], [0xbe, 0xef]);
    // Back at the one who signed, with its own id again.
    signed[..2].copy_from_slice(&4711_u16.to_be_bytes());
    verifier.unwrap().verify(&signed).unwrap();
}

#[test]
fn what_another_implementation_signs_is_taken_and_what_we_sign_it_takes() {
    for (name, algorithm) in [("K1.Example", TsigAlgorithm::HmacSha256), ("k2.example", TsigAlgorithm::HmacSha512)] {
        let (octets, verifier) = query(name, algorithm, SECRET, NOW);
        let Peeled::Signed(message, mut session) = peel(&octets, &ring(), NOW + 299) else { panic!("{name}") };
        assert!(Message::from_vec(&message).unwrap().signature.is_none());
        let mut verifier = verifier.unwrap();
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let plain = reply(&message);
            let signed = session.sign(plain.clone(), NOW);
            assert!(signed.len() - plain.len() <= session.room());
            sizes.push(signed.len());
            verifier.verify(&signed).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        assert_eq!(sizes[0], sizes[2]);
    }
}

#[test]
fn every_wrong_signature_gets_the_error_of_rfc_8945() {
    let good = query("k1.example", TsigAlgorithm::HmacSha256, SECRET, NOW).0;
    let other = query("k1.example", TsigAlgorithm::HmacSha256, "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA==", NOW).0;
    let mut tampered = good.clone();
    tampered[13] ^= 0x01;
    for (name, octets, now_s, word, code, signed) in [
        (
            "no such key",
            query("k3.example", TsigAlgorithm::HmacSha256, SECRET, NOW).0,
            NOW,
            "badkey",
            TsigError::BadKey,
            false,
        ),
        (
            "another algorithm",
            query("k1.example", TsigAlgorithm::HmacSha512, SECRET, NOW).0,
            NOW,
            "badkey",
            TsigError::BadKey,
            false,
        ),
        ("another secret", other, NOW, "badsig", TsigError::BadSig, false),
        ("another question", tampered, NOW, "badsig", TsigError::BadSig, false),
        ("too old", good.clone(), NOW + 301, "badtime", TsigError::BadTime, true),
        ("too new", good.clone(), NOW - 301, "badtime", TsigError::BadTime, true),
        ("cut to half", shorten(&good, 16), NOW, "badtrunc", TsigError::BadTrunc, true),
    ] {
        let Peeled::Refused(reply, got) = peel(&octets, &ring(), now_s) else { panic!("{name}") };
        assert_eq!(got, word, "{name}");
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!((reply.metadata.id, u16::from(reply.metadata.response_code)), (4711, 9), "{name}");
        let tsig = &reply.signature.as_ref().unwrap().data;
        assert_eq!((tsig.error, !tsig.mac.is_empty()), (Some(code), signed), "{name}");
        assert_eq!(tsig.other.len(), if word == "badtime" { 6 } else { 0 }, "{name}");
    }
}

/// With a MAC of `length` octets.
fn shorten(packet: &[u8], length: usize) -> Vec<u8> {
    let mut found = find(packet).unwrap().unwrap();
    found.mac.truncate(length);
    let id = [packet[0], packet[1]];
    let mut short = append(without(packet, &found), &found);
    short[..2].copy_from_slice(&id);
    short
}

#[test]
fn what_breaks_the_format_is_malformed_and_nothing_panics() {
    let good = query("k1.example", TsigAlgorithm::HmacSha256, SECRET, NOW).0;
    assert!(matches!(peel(&shorten(&good, 9), &ring(), NOW), Peeled::Malformed), "shorter than ten octets");
    assert!(matches!(peel(&shorten(&good, 15), &ring(), NOW), Peeled::Malformed), "shorter than half");
    let behind = [good.as_slice(), &[0]].concat();
    assert!(matches!(peel(&behind, &ring(), NOW), Peeled::Malformed), "something behind it");
    let found = find(&good).unwrap().unwrap();
    let twice = append(good.clone(), &found);
    assert!(matches!(peel(&twice, &ring(), NOW), Peeled::Malformed), "two of them");
    for end in 0..good.len() {
        assert!(!matches!(peel(&good[..end], &ring(), NOW), Peeled::Signed(..)), "cut at {end}");
        for bit in 0..8 {
            let mut flipped = good.clone();
            flipped[end] ^= 1 << bit;
            let id = end < 2;
            let case = bit == 5 && flipped[end].is_ascii_alphabetic();
            let taken = matches!(peel(&flipped, &ring(), NOW), Peeled::Signed(..));
            assert!(!taken || id || case, "octet {end} bit {bit}");
        }
    }
}
