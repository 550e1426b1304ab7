//! What `show stat` says: which backends there are, which servers have sessions, and how servers do. Pure.
//!
//! Source: HAProxy, "Management Guide", §9.1 (fields by the names of the first line).

use std::collections::{BTreeMap, BTreeSet};

/// A server, as its checks see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Takes connections.
    pub(super) healthy: bool,
    /// `DOWN`, the check's code and what it said.
    pub(super) reason: String,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Stat {
    pub(super) backends: BTreeSet<String>,
    /// Servers with sessions, by backend.
    pub(super) busy: BTreeMap<String, BTreeSet<String>>,
    servers: BTreeMap<(String, String), Seen>,
}

impl Stat {
    pub(super) fn read(said: &str) -> Self {
        let mut all = Self::default();
        let mut lines = said.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
        let place = |name: &str| names.iter().position(|held| *held == name);
        let (sessions, status) = (place("scur").unwrap_or(4), place("status"));
        let (code, last) = (place("check_status"), place("last_chk"));
        for line in lines {
            let fields = fields(line);
            let [proxy, server, ..] = fields.as_slice() else { continue };
            let field = |at: Option<usize>| at.and_then(|at| fields.get(at)).map_or("", String::as_str);
            match server.as_str() {
                "BACKEND" => drop(all.backends.insert(proxy.clone())),
                "FRONTEND" => {}
                _ => {
                    if field(Some(sessions)) != "0" {
                        all.busy.entry(proxy.clone()).or_default().insert(server.clone());
                    }
                    let seen = seen(field(status), field(code), field(last));
                    all.servers.insert((proxy.clone(), server.clone()), seen);
                }
            }
        }
        all
    }

    /// One server.
    pub(super) fn server(&self, backend: &str, server: &str) -> Option<&Seen> {
        self.servers.get(&(backend.to_owned(), server.to_owned()))
    }
}

fn seen(status: &str, code: &str, last: &str) -> Seen {
    // `UP 1/3` is going down, `no check` is not looked at, `DRAIN` takes nothing new.
    let healthy = status.starts_with("UP") || status == "no check";
    let said = [status, code.trim_start_matches("* "), last];
    let reason = said.into_iter().filter(|word| !healthy && !word.is_empty()).collect::<Vec<_>>().join(", ");
    Seen { healthy, reason }
}

/// Fields with commas between; one in quotes may hold some.
fn fields(line: &str) -> Vec<String> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    all.push(field);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,status,check_status,last_chk\n\
        http,FRONTEND,,,1,1,2000,9,OPEN,,\n\
        web,atoll-a,0,0,2,2,,9,UP,L4OK,\n\
        web,atoll-b,0,0,0,2,,9,DOWN,* L4CON,\"Connection refused, at once\"\n\
        web,theirs,0,0,0,0,,0,no check,,\n\
        web,BACKEND,0,0,1,1,200,9,UP,,\n";

    #[test]
    fn servers_do_as_their_checks_say() {
        let stat = Stat::read(SAID);
        assert_eq!(stat.backends, ["web".to_owned()].into());
        assert_eq!(stat.busy["web"], ["atoll-a".to_owned()].into());
        for (server, healthy, reason) in [
            ("atoll-a", true, ""),
            ("atoll-b", false, "DOWN, L4CON, Connection refused, at once"),
            ("theirs", true, ""),
        ] {
            let seen = stat.server("web", server).unwrap();
            assert_eq!((seen.healthy, seen.reason.as_str()), (healthy, reason), "{server}");
        }
        assert_eq!(stat.server("web", "none"), None);
    }
}
