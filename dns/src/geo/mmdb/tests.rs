//! What small databases say, and that broken ones are refused whole.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn city() -> Vec<u8> {
    write::database(
        "Atoll-City",
        &[
            (
                "192.0.2.0/24",
                json!({"location": {"latitude": 48.85, "longitude": 2.35}, "country": {"iso_code": "FR"}}),
            ),
            ("192.0.2.128/25", json!({"country": {"iso_code": "JP"}, "continent": {"code": "AS"}})),
            ("198.51.100.0/24", json!({"continent": {"code": "SA"}})),
            ("203.0.113.0/24", json!({"country": "AU", "asn": "AS64500"})),
            ("10.0.0.0/8", json!({"region": "us-east"})),
            ("10.7.0.0/16", json!({"city": "nowhere that we know"})),
            ("2001:db8::/32", json!({"country_code": "DE"})),
        ],
    )
}

#[test]
fn a_record_says_where_an_address_is_as_exactly_as_it_can() {
    let mmdb = Mmdb::read(city().into()).unwrap();
    for (ip, spot, len) in [
        ("192.0.2.1", Some(Spot::At(48.85, 2.35)), 25),
        ("192.0.2.200", Some(Spot::At(35.0, 138.0)), 25),
        ("198.51.100.9", Some(Spot::At(-18.0, -55.0)), 24),
        ("203.0.113.9", Some(Spot::At(-34.0, 147.0)), 24),
        ("10.1.2.3", Some(Spot::Region("us-east".into())), 14),
        ("10.7.0.1", None, 16),
        ("2001:db8::1", Some(Spot::At(51.0, 10.0)), 32),
        ("172.16.0.1", None, 2),
        ("2001:db9::1", None, 32),
    ] {
        let found = mmdb.find(ip.parse().unwrap());
        assert_eq!(found.0, spot, "{ip}");
        assert!(found.1 == len || found.0.is_none(), "{ip}: {} is not {len}", found.1);
    }
}

#[test]
fn a_broken_file_is_refused_when_it_is_read() {
    let whole = city();
    let marker = whole.windows(3).position(|w| w == b"\xab\xcd\xef").unwrap();
    let mut pointing_out = whole.clone();
    // The first node's left record points beyond the data.
    pointing_out[..3].copy_from_slice(&[0xff, 0xff, 0xff]);
    let mut separator = whole.clone();
    let data = whole.windows(8).position(|w| w == b"location").unwrap();
    separator[data - 5] = 1;
    for (name, octets) in [
        ("empty", Vec::new()),
        ("text", b"404 not found".to_vec()),
        ("cut before its metadata", whole[..marker].to_vec()),
        ("cut within its metadata", whole[..marker + 40].to_vec()),
        ("without its tree", whole[marker - 20..].to_vec()),
        ("pointing out of itself", pointing_out),
        ("a separator that is none", separator),
    ] {
        assert!(Mmdb::read(octets.into()).is_err(), "{name}");
    }
    assert!(Mmdb::read(whole.into()).is_ok());
}

proptest! {
    #[test]
    fn no_file_makes_a_look_up_panic(at in any::<prop::sample::Index>(), octet in any::<u8>(), ip in any::<u32>(), ip6 in any::<u128>()) {
        let mut octets = city();
        let at = at.index(octets.len());
        octets[at] = octet;
        if let Ok(mmdb) = Mmdb::read(octets.into()) {
            mmdb.find(IpAddr::V4(ip.into()));
            mmdb.find(IpAddr::V6(ip6.into()));
        }
    }
}
