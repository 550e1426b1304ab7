//! The map file: who stands where, by address range, as an address management system exports it. Pure.
//!
//! ```text
//!   # range         where
//!   10.1.0.0/16     region=eu-central zone=eu-central-1a clusterSet=prod
//!   10.2.0.0/16     us-east                       # a word alone is a region
//!   192.0.2.0/24    cluster=prod-eu
//! ```
//!
//! In: the text. Out: a [`Map`], or the first line that can't be meant; then nothing of it counts. At most [`LINES_MAX`] ranges.

use std::net::IpAddr;

use atoll_api::topology::Standing;
use ipnet::IpNet;

const LINES_MAX: usize = 1_000_000;

/// Ranges and who stands there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) ranges: Vec<(IpNet, Standing)>,
}

impl Map {
    /// Reads the file.
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub(crate) fn parse(octets: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(octets).map_err(|e| format!("no text in UTF-8: {e}"))?;
        let mut map = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            let mut words = line.split([' ', '\t', ',', ';']).filter(|w| !w.is_empty());
            let Some(range) = words.next() else { continue };
            if map.ranges.len() >= LINES_MAX {
                return Err(format!("more than {LINES_MAX} ranges"));
            }
            let at = |why: String| format!("line {}: {why}", number + 1);
            let net = range.parse().or_else(|_| range.parse::<IpAddr>().map(IpNet::from));
            let net = net.map_err(|_| at(format!("`{range}` is no address range, such as 10.1.0.0/16")))?;
            map.ranges.push((net.trunc(), standing(words).map_err(at)?));
        }
        Ok(map)
    }
}

fn standing<'a>(words: impl Iterator<Item = &'a str>) -> Result<Standing, String> {
    let mut standing = Standing::default();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or(("region", word));
        let field = match key {
            "cluster" => &mut standing.cluster,
            "region" => &mut standing.region,
            "zone" => &mut standing.zone,
            "clusterSet" => &mut standing.cluster_set,
            other => return Err(format!("`{other}` is none of cluster, region, zone, clusterSet")),
        };
        if value.is_empty() || field.replace(value.to_owned()).is_some() {
            return Err(format!("`{key}` is empty, or said twice"));
        }
    }
    if standing == Standing::default() { Err("says nothing of its range".to_owned()) } else { Ok(standing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_whole_or_not_at_all() {
        let map = Map::parse(b"# ours\n10.1.7.9/16 region=eu zone=a clusterSet=prod\r\n\n2001:db8::/32, us # far\n192.0.2.1 cluster=lab\n").unwrap();
        let show = |(net, s): &(IpNet, Standing)| format!("{net} {}", serde_json::to_string(s).unwrap());
        assert_eq!(
            map.ranges.iter().map(show).collect::<Vec<_>>(),
            [
                r#"10.1.0.0/16 {"region":"eu","zone":"a","clusterSet":"prod"}"#,
                r#"2001:db8::/32 {"region":"us"}"#,
                r#"192.0.2.1/32 {"cluster":"lab"}"#,
            ]
        );
        for (text, says) in [
            (&b"10.1.0.0/16 eu\n10.1.0.0/33 eu\n"[..], "line 2: `10.1.0.0/33` is no address range"),
            (b"10.1.0.0/16\n", "line 1: says nothing"),
            (b"10.1.0.0/16 country=de\n", "line 1: `country` is none of"),
            (b"10.1.0.0/16 eu region=us\n", "line 1: `region` is empty, or said twice"),
            (b"10.1.0.0/16 \xff", "no text in UTF-8"),
        ] {
            let refusal = Map::parse(text).unwrap_err();
            assert!(refusal.starts_with(says), "{refusal}");
        }
        assert_eq!(Map::parse(b"").unwrap(), Map::default());
    }
}
