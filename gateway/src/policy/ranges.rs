//! Ranges of addresses, as lists of them are written. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

/// A list of ranges.
#[derive(Debug)]
pub(crate) struct Ranges(Vec<IpNet>);

impl Ranges {
    /// # Errors
    /// One of them is none.
    pub(crate) fn parse(written: &[String]) -> Result<Self, String> {
        let one = |text: &String| {
            let range = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            range.map(canonical).map_err(|_| format!("cidrs: `{text}` is neither an address nor a range"))
        };
        Ok(Self(written.iter().map(one).collect::<Result<_, _>>()?))
    }

    pub(crate) fn hold(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }
}

/// IPv4 written as IPv6 is IPv4, as addresses of clients are.
fn canonical(range: IpNet) -> IpNet {
    let written = range.prefix_len().checked_sub(96).filter(|_| matches!(range, IpNet::V6(_)));
    match (range.addr().to_canonical(), written) {
        (IpAddr::V4(address), Some(len)) => IpNet::new(address.into(), len).unwrap_or(range),
        _ => range,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_found_however_the_range_is_written() {
        for (range, client, holds) in [
            ("10.1.2.3/8", "10.9.9.9", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("::ffff:10.0.0.0/104", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
        ] {
            let ranges = Ranges::parse(&[range.to_owned()]).unwrap();
            assert_eq!(ranges.hold(client.parse().unwrap()), holds, "{range} {client}");
        }
        assert!(Ranges::parse(&["10.0.0.0/33".to_owned()]).unwrap_err().contains("`10.0.0.0/33`"));
    }
}
