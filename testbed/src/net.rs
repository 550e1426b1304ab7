//! Bridge, namespaces, cables and routes. One `ip -batch` a step, so that a member costs milliseconds.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::plan::{Block, MemberPlan};
use crate::shell::{feed, run, wait};

/// The table of ours in a namespace's nftables.
pub(crate) const TABLE: &str = "atoll-testbed";

/// The root namespace's end of the cable to an address of the bridge.
pub(crate) fn cable(block: Block, host: u8) -> String {
    format!("{}v{host}", block.prefix())
}

/// Chooses a block that no other checkout and no route of the machine uses.
pub(crate) async fn choose_block(home: &Home) -> Result<Block> {
    let taken = home.blocks_of_others();
    let routes = run(&["ip", "-4", "route", "show", "table", "all"]).await?;
    let used = |block: Block| {
        let start = format!("10.{}.", block.0);
        routes.split_whitespace().any(|word| word.starts_with(&start))
    };
    if let Ok(wanted) = std::env::var("ATOLL_TESTBED_BLOCK") {
        let block = wanted.parse().map(Block).map_err(|_| {
            Error::Refused(format!("ATOLL_TESTBED_BLOCK=`{wanted}`: it is the second octet of a free 10.B.0.0/16"))
        })?;
        if taken.contains(&block) || used(block) {
            return Err(Error::Refused(format!("{} is in use: name another in ATOLL_TESTBED_BLOCK", block.range())));
        }
        return Ok(block);
    }
    let mut free = Block::candidates(home.hash).filter(|block| !taken.contains(block) && !used(*block));
    free.next().ok_or_else(|| Error::Refused("no 10.B.0.0/16 with B from 100 to 219 is free of routes here".into()))
}

/// Makes the bridge and the routes of the root namespace.
pub(crate) async fn make_bridge(block: Block, members: &[MemberPlan]) -> Result<()> {
    // Where they are modules; where they are built in there may be no modprobe at all.
    let _ = run(&["modprobe", "--all", "bridge", "veth", "overlay", "nf_tables", "nf_conntrack"]).await;
    let (bridge, host) = (block.prefix(), block.host());
    let mut batch = format!("link add {bridge} type bridge\naddr add {host}/24 dev {bridge}\nlink set {bridge} up\n");
    // Without it what has no route of its own would leave by the machine's default route.
    writeln!(batch, "route add unreachable {}", block.range()).expect("a string takes it");
    routes(&mut batch, members, None);
    ip(&["ip", "-batch", "-"], &batch).await
}

fn routes(batch: &mut String, members: &[MemberPlan], of: Option<&MemberPlan>) {
    for other in members.iter().filter(|other| other.routed()) {
        if of.is_some_and(|of| of.range_index == other.range_index) {
            continue;
        }
        for range in [other.pods(), other.services()] {
            writeln!(batch, "route add {range} via {}", other.node()).expect("a string takes it");
        }
    }
}

/// Makes a namespace with a cable to the bridge.
pub(crate) async fn make_namespace(block: Block, name: &str, address: std::net::Ipv4Addr) -> Result<()> {
    let namespace = block.namespace(name);
    let cable = cable(block, address.octets()[3]);
    let batch = format!(
        "netns add {namespace}\nlink add {cable} type veth peer name eth0 netns {namespace}\n\
         link set {cable} master {}\nlink set {cable} up\n",
        block.prefix()
    );
    ip(&["ip", "-batch", "-"], &batch).await?;
    let batch = format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
    ip(&["ip", "-n", &namespace, "-batch", "-"], &batch).await
}

/// A member's routes to the others, forwarding for its pods, and masquerading where nobody has a route back.
pub(crate) async fn make_routes(member: &MemberPlan, members: &[MemberPlan]) -> Result<()> {
    let namespace = member.namespace();
    // Its own services need some route, else the node itself would not even send to where kube-proxy takes over.
    let mut batch = format!("route add {} dev eth0\n", member.services());
    routes(&mut batch, members, Some(member));
    ip(&["ip", "-n", &namespace, "-batch", "-"], &batch).await?;
    let net = format!("--net=/run/netns/{namespace}");
    run(&["nsenter", &net, "--", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).await?;
    let masquerade = if member.routed() {
        String::new()
    } else {
        let pods = member.pods();
        format!(
            "chain out {{ type nat hook postrouting priority 90; ip saddr {pods} ip daddr != {pods} oifname \"eth0\" masquerade; }}\n"
        )
    };
    feed(&["nsenter", &net, "--", "nft", "-f", "-"], &format!("table ip {TABLE} {{\n{masquerade}}}\n")).await?;
    Ok(())
}

async fn ip(words: &[&str], batch: &str) -> Result<()> {
    feed(words, batch).await.map(drop)
}

/// Removes every namespace, cable, bridge and route of a block; what is not there is no failure.
pub(crate) async fn clear(block: Block) -> Result<()> {
    let prefix = block.prefix();
    for namespace in namespaces(block).await? {
        run(&["ip", "netns", "del", &namespace]).await?;
    }
    let cables = links(block).await?;
    for link in cables {
        // A cable goes with its namespace, a moment later: that it is gone by now is what we want.
        let _ = run(&["ip", "link", "del", &link]).await;
    }
    let _ = run(&["ip", "route", "del", "unreachable", &block.range()]).await;
    wait("interfaces and routes go", Duration::from_secs(20), || async {
        let mut left = links(block).await.map_err(|error| error.to_string())?;
        let start = format!("10.{}.", block.0);
        let routes = run(&["ip", "-4", "route", "show"]).await.map_err(|error| error.to_string())?;
        left.extend(routes.lines().filter(|line| line.contains(&start)).map(str::to_owned));
        if left.is_empty() { Ok(()) } else { Err(format!("{prefix}: {left:?}")) }
    })
    .await
}

/// The namespaces of a block that are there.
pub(crate) async fn namespaces(block: Block) -> Result<Vec<String>> {
    let start = block.namespace("");
    let folder = Path::new("/run/netns");
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    Ok(names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(&start)).collect())
}

/// The interfaces of a block that are there, the bridge last.
pub(crate) async fn links(block: Block) -> Result<Vec<String>> {
    let prefix = block.prefix();
    let cable = format!("{prefix}v");
    let names = std::fs::read_dir("/sys/class/net").map_err(Error::on(Path::new("/sys/class/net")))?;
    let mut found: Vec<String> = names
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| *name == prefix || name.starts_with(&cable))
        .collect();
    found.sort_by_key(|name| *name == prefix);
    Ok(found)
}
