//! What a value may look like: addresses, ranges, names. Each that does not is an error with its key, the value and an example.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{anyhow, bail};
use atoll_api::topology::Standing;
use atoll_reach::host_and_port;
use ipnet::IpNet;

use super::{Clients, Listen};

/// An address that there is only if the file names it.
pub(super) fn chosen(key: &'static str, said: Option<String>, example: u16) -> anyhow::Result<Option<Listen>> {
    said.map(|at| listen(key, Some(at), example)).transpose()
}

pub(super) fn listen(key: &'static str, said: Option<String>, default: u16) -> anyhow::Result<Listen> {
    let chosen = said.is_some();
    let at = match said {
        None => SocketAddr::from(([127, 0, 0, 1], default)),
        Some(said) => {
            said.parse().map_err(|_| anyhow!("{key}: `{said}` is not address:port, such as 127.0.0.1:{default}"))?
        }
    };
    Ok(Listen { key, at, chosen })
}

pub(super) fn yes_or_no(key: &str, said: &str) -> anyhow::Result<bool> {
    said.parse().map_err(|_| anyhow!("{key}: `{said}` is neither true nor false"))
}

pub(super) fn host_port(key: &str, said: String) -> anyhow::Result<String> {
    match host_and_port(&said) {
        Some((_, 1..)) => Ok(said),
        _ => bail!("{key}: `{said}` is not host:port, such as hub.example.com:7443"),
    }
}

pub(super) fn label(key: &str, said: String) -> anyhow::Result<String> {
    if !atoll_api::names::is_label(&said) {
        bail!("{key}: `{said}` is not a name: lower-case letters, digits and `-`, at most 63");
    }
    Ok(said)
}

/// A domain name, in lower case and without the last dot.
pub(super) fn domain(key: &str, said: String) -> anyhow::Result<String> {
    let name = atoll_api::names::domain(&said);
    name.ok_or_else(|| anyhow!("{key}: `{said}` is not a domain name, such as atoll.internal"))
}

pub(super) fn range(key: &str, said: &str) -> anyhow::Result<IpNet> {
    let parsed = said.parse().or_else(|_| said.parse::<IpAddr>().map(IpNet::from));
    parsed.map_err(|_| anyhow!("{key}: `{said}` is not an address range, such as 10.0.0.0/8"))
}

pub(super) fn clients(key: &str, said: BTreeMap<String, Standing>) -> anyhow::Result<Clients> {
    said.into_iter().map(|(net, standing)| Ok((range(key, &net)?, standing))).collect()
}
