//! What is said to HAProxy so that its servers, maps and certificates are as they are to be: its state is read each time, so that saying it again changes
//! nothing, and a HAProxy that began anew is told everything. Pure.
//!
//! In: what is wanted, what there is. Out: commands. Source: HAProxy, "Management Guide", §9.3 (`show servers state`, `add server`, `set map`).

use std::collections::{BTreeMap, BTreeSet};

use atoll_api::provider::Server;

/// What the names of servers begin with that are ours; others are left alone.
const OURS: &str = "atoll-";

/// A server as HAProxy has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Has {
    pub(crate) weight: u16,
    /// Takes nothing new.
    pub(crate) draining: bool,
    /// Is out, by our word or somebody's.
    pub(crate) maint: bool,
}

/// Servers by backend and name.
pub(crate) type Servers = BTreeMap<String, BTreeMap<String, Has>>;

/// The name of a server.
pub(crate) fn name(server: &Server) -> String {
    let ip: String = server.address.to_string().chars().map(|c| if c == ':' || c == '.' { '-' } else { c }).collect();
    format!("{OURS}{ip}-{}", server.port)
}

/// Reads `show servers state`.
pub(crate) fn servers(said: &str) -> Servers {
    let mut all = Servers::new();
    for line in said.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[_, backend, _, server, _, _, administrative, weight, ..] = fields.as_slice() else { continue };
        let bits: u32 = administrative.parse().unwrap_or_default();
        let has = Has {
            weight: weight.parse().unwrap_or_default(),
            // SRV_ADMF_FDRAIN and its inherited twin; SRV_ADMF_FMAINT, …IMAINT, …CMAINT, …RMAINT.
            draining: bits & 0x18 != 0,
            maint: bits & 0x67 != 0,
        };
        all.entry(backend.to_owned()).or_default().insert(server.to_owned(), has);
    }
    all
}

/// How servers are made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    /// They are checked as the backend's `default-server` says.
    pub(crate) checks: bool,
    /// HTTP/2 is spoken to them.
    pub(crate) h2: bool,
}

/// What is to be said of the servers of a backend. `busy`: those with sessions. A server that is wanted no more is drained first, and deleted
/// once nobody is there.
pub(crate) fn commands(
    backend: &str,
    wanted: &[Server],
    has: &BTreeMap<String, Has>,
    how: How,
    busy: &BTreeSet<String>,
) -> Vec<String> {
    let mut said = Vec::new();
    let names: BTreeSet<String> = wanted.iter().map(name).collect();
    for server in wanted {
        let (name, weight) = (name(server), server.weight);
        let at = format!("{backend}/{name}");
        match has.get(&name) {
            None => {
                let check = if how.checks { " check" } else { "" };
                let proto = if how.h2 { " proto h2" } else { "" };
                let ip = server.address;
                let address =
                    if ip.is_ipv4() { format!("{ip}:{}", server.port) } else { format!("[{ip}]:{}", server.port) };
                said.push(format!("add server {at} {address} weight {weight}{proto}{check}"));
                if how.checks {
                    said.push(format!("enable health {at}"));
                }
                said.push(format!("set server {at} state ready"));
            }
            Some(has) => {
                if has.weight != weight {
                    said.push(format!("set server {at} weight {weight}"));
                }
                if has.draining || has.maint {
                    said.push(format!("set server {at} state ready"));
                }
            }
        }
    }
    for (name, has) in has.iter().filter(|(name, _)| name.starts_with(OURS) && !names.contains(*name)) {
        let at = format!("{backend}/{name}");
        if !has.draining && !has.maint {
            said.push(format!("set server {at} state drain"));
        } else if !busy.contains(name) {
            if !has.maint {
                said.push(format!("set server {at} state maint"));
            }
            said.push(format!("del server {at}"));
        }
    }
    said
}

/// Reads `show map FILE`: keys and values.
pub(crate) fn map(said: &str) -> BTreeMap<String, String> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, key, value) = (fields.next()?, fields.next()?, fields.next()?);
        Some((key.to_owned(), value.to_owned()))
    };
    said.lines().filter(|line| !line.starts_with('#')).filter_map(entry).collect()
}

/// What is to be said of a map, which is ours as a whole.
pub(crate) fn map_commands(
    file: &str,
    wanted: &BTreeMap<String, String>,
    has: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut said = Vec::new();
    for (key, value) in wanted {
        match has.get(key) {
            None => said.push(format!("add map {file} {key} {value}")),
            Some(held) if held != value => said.push(format!("set map {file} {key} {value}")),
            Some(_) => {}
        }
    }
    said.extend(has.keys().filter(|key| !wanted.contains_key(*key)).map(|key| format!("del map {file} {key}")));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(last: u8, weight: u16) -> Server {
        Server { address: [10, 0, 0, last].into(), port: 80, weight, cluster: None }
    }

    const STATE: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight\n\
        3 web 1 atoll-10-0-0-1-80 10.0.0.1 2 0 100 100 5 6 3 4 6 0 0 0 - 80 - 0 0 - - 0\n\
        3 web 2 atoll-10-0-0-2-80 10.0.0.2 2 0 256 256 5 6 3 4 6 0 0 0 - 80 - 0 0 - - 0\n\
        3 web 3 atoll-10-0-0-3-80 10.0.0.3 2 8 256 256 5 6 3 4 6 0 0 0 - 80 - 0 0 - - 0\n\
        3 web 4 atoll-10-0-0-4-80 10.0.0.4 0 1 256 256 5 6 3 4 6 0 0 0 - 80 - 0 0 - - 0\n\
        3 web 5 theirs 10.0.0.9 2 0 1 1 5 6 3 4 6 0 0 0 - 80 - 0 0 - - 0\n";

    #[test]
    fn servers_become_what_is_wanted_and_those_of_others_stay() {
        let has = &servers(STATE)["web"];
        let wanted = [server(1, 256), server(3, 256), server(5, 128)];
        let busy = ["atoll-10-0-0-2-80".to_owned()].into();
        assert_eq!(
            commands("web", &wanted, has, How { checks: true, h2: false }, &busy),
            [
                "set server web/atoll-10-0-0-1-80 weight 256",
                "set server web/atoll-10-0-0-3-80 state ready",
                "add server web/atoll-10-0-0-5-80 10.0.0.5:80 weight 128 check",
                "enable health web/atoll-10-0-0-5-80",
                "set server web/atoll-10-0-0-5-80 state ready",
                "set server web/atoll-10-0-0-2-80 state drain",
                "del server web/atoll-10-0-0-4-80",
            ]
        );
        let same = [server(1, 100), server(2, 256), server(3, 256), server(4, 256)];
        let again: Vec<String> = commands("web", &same[..2], has, How { checks: true, h2: false }, &BTreeSet::new());
        assert!(again.iter().all(|command| !command.contains("-1-80") && !command.contains("-2-80")), "{again:?}");
    }

    #[test]
    fn one_that_is_drained_is_deleted_once_nobody_is_there() {
        let has = &servers(STATE)["web"];
        for (busy, last) in [(true, "state drain"), (false, "del server web/atoll-10-0-0-3-80")] {
            let busy = if busy { ["atoll-10-0-0-3-80".to_owned()].into() } else { BTreeSet::new() };
            let wanted = [server(1, 100), server(4, 256)];
            let said = commands("web", &wanted, has, How { checks: false, h2: true }, &busy);
            assert!(said.last().unwrap().ends_with(last), "{said:?}");
        }
    }

    #[test]
    fn a_map_is_made_as_wanted() {
        let has = map("0x55d a.example web\n0x55e b.example old\n0x55f c.example gone\n");
        let wanted = [("a.example", "web"), ("b.example", "new"), ("d.example", "web")];
        let wanted = wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(
            map_commands("/m", &wanted, &has),
            ["set map /m b.example new", "add map /m d.example web", "del map /m c.example"]
        );
    }
}
