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
            range.map_err(|_| format!("cidrs: `{text}` is neither an address nor a range"))
        };
        Ok(Self(written.iter().map(one).collect::<Result<_, _>>()?))
    }

    pub(crate) fn hold(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }
}
