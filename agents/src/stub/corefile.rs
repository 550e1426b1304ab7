//! A Corefile with and without our block. Pure.
//!
//! In: the text, the block as `atoll dns stub --for coredns` prints it. Out: the text with the block between two marks at its head, or the
//! text without it: exactly what it was before. Nothing outside the marks is ever changed. What can't be read is refused, and so is a block
//! whose zones are served by somebody else's: CoreDNS does not start with such a file ("it is already defined").
//! Source: coredns/caddy `caddyfile/lexer.go` and `parse.go` (tokens, quotes, comments, imports, snippets), coredns `core/dnsserver/register.go`.

use atoll_api::reverse;
use ipnet::IpNet;

const BEGIN: &str = "# atoll: begin (kept by the agent as agent.stub says; changes between these marks are undone)";
const END: &str = "# atoll: end";
/// What tells a mark, whatever is said behind it.
const BEGIN_MARK: &str = "# atoll: begin";

/// A block of a Corefile: whom it serves and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Server {
    keys: Vec<String>,
    /// The words of its `bind`.
    bind: Option<String>,
    reloads: bool,
}

/// What stands outside of our marks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Parsed {
    servers: Vec<Server>,
    imports: Vec<String>,
}

/// The text with `block` for `zones` in it, and what to know about that.
///
/// # Errors
/// Why it is left as it is.
pub(super) fn with(corefile: &str, block: &str, zones: &[&str]) -> Result<(String, Option<&'static str>), String> {
    let (rest, _) = split(corefile)?;
    let parsed = parse(&rest)?;
    free(&parsed.servers, zones)?;
    let root = root(&parsed.servers);
    let text = format!("{BEGIN}\n{}\n{END}\n{rest}", placed(block, root));
    let reloads = root.is_some_and(|(server, _)| server.reloads);
    Ok((text, (!reloads).then_some("its Corefile has no `reload`: restart it")))
}

/// The block alone, placed beside the others of this Corefile, for a file that it imports.
///
/// # Errors
/// As [`with`]. `others` are further files that it imports.
pub(super) fn beside<'o>(
    corefile: &str,
    others: impl IntoIterator<Item = &'o str>,
    block: &str,
    zones: &[&str],
) -> Result<String, String> {
    let (rest, _) = split(corefile)?;
    let parsed = parse(&rest)?;
    free(&parsed.servers, zones)?;
    for other in others {
        free(&parse(other)?.servers, zones)?;
    }
    Ok(format!("{BEGIN}\n{}\n{END}\n", placed(block, root(&parsed.servers))))
}

/// The text without our block.
///
/// # Errors
/// Marks that don't match.
pub(super) fn without(corefile: &str) -> Result<String, String> {
    split(corefile).map(|(rest, _)| rest)
}

/// Whether it takes further server blocks out of the directory that `coredns-custom` is mounted at (AKS, k3s, DigitalOcean).
pub(super) fn imports_custom(corefile: &str) -> bool {
    let parsed = split(corefile).and_then(|(rest, _)| parse(&rest));
    let custom = |path: &String| path == "custom/*.server" || path.ends_with("/custom/*.server");
    parsed.is_ok_and(|parsed| parsed.imports.iter().any(custom))
}

/// What stands around our block, and whether there is one.
fn split(corefile: &str) -> Result<(String, bool), String> {
    let mut rest = String::with_capacity(corefile.len());
    let (mut inside, mut found) = (false, false);
    for line in corefile.split_inclusive('\n') {
        let mark = line.trim();
        match (mark.starts_with(BEGIN_MARK), mark == END, inside) {
            (true, _, false) if !found => (inside, found) = (true, true),
            (true, ..) => return Err(format!("the Corefile has the mark `{BEGIN_MARK}` twice: take one out by hand")),
            (_, true, true) => inside = false,
            (_, true, false) => {
                return Err(format!("the Corefile has the mark `{END}` without a begin: take it out by hand"));
            }
            (.., true) => {}
            (.., false) => rest.push_str(line),
        }
    }
    if inside {
        return Err(format!(
            "the Corefile has the mark `{BEGIN_MARK}` without an end: put `{END}` behind our block by hand"
        ));
    }
    Ok((rest, found))
}

/// The block at the port and addresses of the one that serves the root: where pods ask.
fn placed(block: &str, root: Option<(&Server, Option<u16>)>) -> String {
    let Some((server, port)) = root else { return block.trim_end().to_owned() };
    let (zones, body) = block.trim_end().split_once('{').unwrap_or((block, ""));
    let zones: Vec<String> = zones
        .split_whitespace()
        .map(|zone| port.map_or_else(|| zone.to_owned(), |port| format!("{zone}:{port}")))
        .collect();
    let bind = server.bind.as_ref().map(|words| format!("\n    bind {words}")).unwrap_or_default();
    format!("{} {{{bind}{body}", zones.join(" "))
}

/// The block that answers plain DNS for everything, and its port where one is written.
fn root(servers: &[Server]) -> Option<(&Server, Option<u16>)> {
    servers.iter().find_map(|server| {
        let (_, port) =
            server.keys.iter().filter_map(|key| served(key)).find(|(zones, _)| zones.iter().any(|z| z.is_empty()))?;
        Some((server, port))
    })
}

/// That nobody else serves one of `zones`.
fn free(servers: &[Server], zones: &[&str]) -> Result<(), String> {
    for key in servers.iter().flat_map(|server| &server.keys) {
        let Some((taken, _)) = served(key) else { continue };
        if let Some(zone) = zones.iter().find(|zone| taken.iter().any(|t| t == *zone)) {
            return Err(format!(
                "zone `{zone}` is served by the block `{key}` of the Corefile already, and CoreDNS takes a zone once: take that block out, or switch agent.stub off"
            ));
        }
    }
    Ok(())
}

/// The zones that a key serves by plain DNS, and its port. `None` for other transports and snippets.
fn served(key: &str) -> Option<(Vec<String>, Option<u16>)> {
    if key.starts_with('(') {
        return None;
    }
    let rest = match key.split_once("://") {
        Some(("dns", rest)) => rest,
        Some(_) => return None,
        None => key,
    };
    // A range, with a port or without: 10.0.0.0/24:53.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
        _ => (rest, None),
    };
    let ranged = host.parse::<IpNet>().ok().filter(|_| host.contains('/')).and_then(|net| reverse::zones(&net));
    Some((ranged.unwrap_or_else(|| vec![host.trim_end_matches('.').to_ascii_lowercase()]), port))
}

/// The blocks and imports of a Corefile, as far as we have to know them.
fn parse(text: &str) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let (mut depth, mut keys, mut server) = (0_usize, Vec::<String>::new(), Server::default());
    let mut unclosed = 0;
    for (at, line) in lines(text)? {
        let unreadable = |why: &str| format!("the Corefile can't be read: line {at}: {why}");
        match (depth, line.first().map(String::as_str)) {
            (0, Some("import")) if keys.is_empty() => parsed.imports.extend(line.get(1).cloned()),
            (0, Some(_)) => {
                for word in &line {
                    match word.as_str() {
                        "{" => {
                            depth = 1;
                            unclosed = at;
                            server = Server { keys: std::mem::take(&mut keys), ..Server::default() };
                            if server.keys.is_empty() {
                                return Err(unreadable("a block that serves nothing"));
                            }
                        }
                        "}" => return Err(unreadable("a `}` that closes nothing")),
                        _ if depth > 0 => return Err(unreadable("words behind the `{` of a block")),
                        word => keys.extend(word.split(',').filter(|key| !key.is_empty()).map(str::to_owned)),
                    }
                }
            }
            (_, Some(first)) => {
                match first {
                    "bind" if depth == 1 => server.bind = Some(line[1..].join(" ")),
                    "reload" if depth == 1 => server.reloads = true,
                    _ => {}
                }
                for word in &line {
                    match word.as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 {
                        parsed.servers.push(std::mem::take(&mut server));
                        break;
                    }
                }
                if depth == 0 && line.last().is_some_and(|word| word != "}") {
                    return Err(unreadable("words behind the `}` of a block"));
                }
            }
            (_, None) => {}
        }
    }
    match (depth, keys.is_empty()) {
        (0, true) => Ok(parsed),
        (0, false) => Err("the Corefile can't be read: a server without braces".to_owned()),
        _ => Err(format!("the Corefile can't be read: the block of line {unclosed} is not closed")),
    }
}

/// The words of each line, with its number. A word in quotes is one, over lines, too; a `#` that begins a word begins a comment.
fn lines(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let (mut all, mut line, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let (mut at, mut quoted, mut comment) = (1, None, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if quoted.is_some() {
            match c {
                '\\' if chars.peek() == Some(&'"') => word.get_or_insert_default().extend(chars.next()),
                '"' => {
                    quoted = None;
                    // A brace in quotes is no brace.
                    line.push(format!("\"{}\"", word.take().unwrap_or_default()));
                }
                _ => word.get_or_insert_default().push(c),
            }
            at += usize::from(c == '\n');
            continue;
        }
        match c {
            '\n' => {
                line.extend(word.take());
                all.push((at, std::mem::take(&mut line)));
                (at, comment) = (at + 1, false);
            }
            _ if comment => {}
            c if c.is_whitespace() => line.extend(word.take()),
            '#' if word.is_none() => comment = true,
            '"' if word.is_none() => quoted = Some(at),
            c => word.get_or_insert_default().push(c),
        }
    }
    if let Some(begun) = quoted {
        return Err(format!("the Corefile can't be read: line {begun}: a quotation that does not end"));
    }
    line.extend(word);
    all.push((at, line));
    Ok(all)
}

#[cfg(test)]
mod tests;
