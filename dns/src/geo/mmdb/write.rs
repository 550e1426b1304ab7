//! Writes small databases for tests, by the MaxMind DB format specification 2.0: records of 24 bits, IPv4 alone or below ::/96.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

/// A node of the search tree: what stands left and right.
#[derive(Clone, Copy)]
enum Branch {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A database of these ranges, each with its record. Narrower ranges come after wider ones.
pub(crate) fn database(kind: &str, ranges: &[(&str, Value)]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut tree = vec![[Branch::Nothing; 2]];
    for (net, record) in ranges {
        let offset = data.len();
        value(record, &mut data);
        insert(&mut tree, net.parse().unwrap(), offset);
    }
    let count = tree.len();
    let mut file = Vec::new();
    for branch in tree.iter().flatten() {
        // "If the record value is greater than the number of nodes, it is a pointer into the data section", 16 octets of zeros before it.
        let record = match branch {
            Branch::Nothing => count,
            Branch::Node(node) => *node,
            Branch::Data(offset) => count + 16 + offset,
        };
        file.extend_from_slice(&u32::try_from(record).unwrap().to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    metadata(kind, count, &mut file);
    file
}

fn metadata(kind: &str, count: usize, out: &mut Vec<u8>) {
    // The types of its integers are fixed: uint16, uint32, uint64.
    let number = |type_code: u8, n: u64, out: &mut Vec<u8>| {
        let octets = n.to_be_bytes();
        let octets = &octets[octets.iter().position(|b| *b != 0).unwrap_or(8)..];
        control(type_code, octets.len(), out);
        out.extend_from_slice(octets);
    };
    control(7, 9, out);
    for (key, type_code, n) in [
        ("binary_format_major_version", 5, 2),
        ("binary_format_minor_version", 5, 0),
        ("build_epoch", 9, 1_700_000_000),
        ("ip_version", 5, 6),
        ("node_count", 6, count as u64),
        ("record_size", 5, 24),
    ] {
        text(key, out);
        number(type_code, n, out);
    }
    for (key, said) in
        [("database_type", json!(kind)), ("description", json!({"en": "for tests"})), ("languages", json!(["en"]))]
    {
        text(key, out);
        value(&said, out);
    }
}

fn insert(tree: &mut Vec<[Branch; 2]>, net: IpNet, offset: usize) {
    let (bits, len) = match net.network() {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 96 + net.prefix_len()),
        IpAddr::V6(ip) => (ip.to_bits(), net.prefix_len()),
    };
    let mut node = 0;
    for depth in 0..len {
        let side = usize::from(bits >> (127 - depth) & 1 == 1);
        if depth + 1 == len {
            tree[node][side] = Branch::Data(offset);
            return;
        }
        node = match tree[node][side] {
            Branch::Node(next) => next,
            // A wider range is taken apart around the narrower.
            above => {
                tree.push([above; 2]);
                tree[node][side] = Branch::Node(tree.len() - 1);
                tree.len() - 1
            }
        };
    }
}

/// A control octet: type in the upper three bits (0: extended, in the next octet), size below 29 in the lower five.
fn control(type_code: u8, size: usize, out: &mut Vec<u8>) {
    let (first, more) = if type_code > 7 { (0, Some(type_code - 7)) } else { (type_code << 5, None) };
    match size {
        0..29 => out.extend(std::iter::once(first | u8::try_from(size).unwrap()).chain(more)),
        _ => {
            out.extend(std::iter::once(first | 29).chain(more));
            out.push(u8::try_from(size - 29).unwrap());
        }
    }
}

fn text(said: &str, out: &mut Vec<u8>) {
    control(2, said.len(), out);
    out.extend_from_slice(said.as_bytes());
}

fn value(said: &Value, out: &mut Vec<u8>) {
    match said {
        Value::String(said) => text(said, out),
        Value::Object(map) => object(map, out),
        Value::Array(all) => {
            control(11, all.len(), out);
            all.iter().for_each(|one| value(one, out));
        }
        Value::Number(number) => {
            control(3, 8, out);
            out.extend_from_slice(&number.as_f64().unwrap().to_be_bytes());
        }
        other => panic!("{other} has no form here"),
    }
}

fn object(map: &Map<String, Value>, out: &mut Vec<u8>) {
    control(7, map.len(), out);
    for (key, said) in map {
        text(key, out);
        value(said, out);
    }
}
