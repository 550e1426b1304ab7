//! What connections begin with: PROXY headers of balancers, TLS hellos.
//!
//! In: octets. Checked: a header takes its own octets and no more, and names the client that it would name again; a hello's name is in
//! lower case, and whoever ends or passes TLS gets every octet again.

use std::io::Cursor;
use std::net::SocketAddr;

use atoll_reach::proxy::{Ends, Version, header, take_any};
use futures::FutureExt as _;
use tokio::io::AsyncReadExt as _;

use crate::listen::hello as read_hello;

/// A PROXY header, of either version.
///
/// # Panics
/// When a rule does not hold.
pub fn proxy(octets: &[u8]) {
    let mut left = octets;
    // What is there is read at once.
    let Some(Ok(ends)) = take_any(&mut left).now_or_never() else { return };
    let taken = &octets[..octets.len() - left.len()];
    assert_eq!([taken, left].concat(), octets, "what follows the header");
    assert!(taken.len() <= 16 + usize::from(u16::MAX), "a header is short");
    if taken.starts_with(b"PROXY ") {
        assert!(
            taken.len() <= 107 && taken.ends_with(b"\r\n") && !taken[..taken.len() - 2].ends_with(b"\r\n"),
            "one line"
        );
    }
    let Some(ends) = ends else { return };
    for version in [Version::V1, Version::V2] {
        let written = header(version, ends);
        let mut again = written.as_slice();
        let named = take_any(&mut again).now_or_never().and_then(Result::ok).flatten();
        let plain = |at: SocketAddr| (at.ip().to_canonical(), at.port());
        let both = |ends: Ends| (plain(ends.client), plain(ends.server));
        assert_eq!(named.map(both), Some(both(ends)), "the same ends");
        assert!(again.is_empty(), "its own octets");
    }
}

/// A TLS hello, which comes in two pieces.
///
/// # Panics
/// When a rule does not hold.
pub fn hello(octets: &[u8]) {
    let (first, second) = octets.split_at(octets.len() / 3);
    let pieces = Cursor::new(first.to_vec()).chain(Cursor::new(second.to_vec()));
    let stream = Box::new(tokio::io::join(pieces, tokio::io::sink()));
    let Some(Ok((name, mut stream))) = read_hello(stream).now_or_never() else { return };
    assert_eq!(name, name.to_ascii_lowercase(), "a name in lower case");
    assert!(name.is_ascii() && !name.contains(['/', ' ', '\0']) && name.len() <= 255, "a name of DNS: `{name}`");
    let mut again = Vec::new();
    let read = stream.read_to_end(&mut again).now_or_never();
    assert!(matches!(read, Some(Ok(_))) && again == octets, "every octet again");
}
