//! Requests out of a log: JSON objects, one a line, or the lines that nginx writes ("combined" and what begins alike). Pure.

use serde_json::Value;

/// A request.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Its method.
    pub method: String,
    /// The host asked for.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Headers beside Host.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// Headers that belong to a connection, not to a request.
const NOT_SENT: &[&str] = &["host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "keep-alive"];

/// The requests of a log. `host`: of lines that don't say.
///
/// # Errors
/// A line that is none, by its number.
pub fn parse(log: &str, host: Option<&str>) -> Result<Vec<Record>, String> {
    let lines = log.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let said = |why: &str| format!("line {}: {why}", at + 1);
            if line.trim_start().starts_with('{') { json(line, host) } else { combined(line, host) }.map_err(said)
        })
        .collect()
}

/// Keys as they are usual in logs of JSON.
fn json(line: &str, host: Option<&str>) -> Result<Record, &'static str> {
    let object: Value = serde_json::from_str(line).map_err(|_| "it is no JSON object")?;
    let text = |keys: &[&str]| keys.iter().find_map(|key| object[*key].as_str()).map(str::to_owned);
    let headers = object["headers"].as_object().into_iter().flatten();
    let headers = headers.filter(|(name, _)| !NOT_SENT.contains(&name.to_ascii_lowercase().as_str()));
    Ok(Record {
        method: text(&["method", "request_method", "verb"]).unwrap_or_else(|| "GET".to_owned()),
        host: text(&["host", "http_host", "vhost"]).or_else(|| host.map(str::to_owned)).ok_or("it names no host")?,
        target: text(&["target", "uri", "request_uri", "path"])
            .filter(|t| t.starts_with('/'))
            .ok_or("it has no path")?,
        headers: headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
        body: text(&["body"]).unwrap_or_default(),
    })
}

/// `address - user [time] "GET /path HTTP/1.1" status bytes "referer" "agent" …`
fn combined(line: &str, host: Option<&str>) -> Result<Record, &'static str> {
    let host = host.ok_or("it names no host: give one with --host")?;
    let mut quoted = line.split('"').skip(1).step_by(2);
    let request = quoted.next().ok_or("it holds no request")?;
    let mut words = request.split(' ');
    let (Some(method), Some(target), Some(_)) = (words.next(), words.next(), words.next()) else {
        return Err("it holds no request");
    };
    if !target.starts_with('/') {
        return Err("its request has no path");
    }
    let mut headers = Vec::new();
    for (name, value) in [("referer", quoted.next()), ("user-agent", quoted.next())] {
        if let Some(value) = value.filter(|value| *value != "-" && !value.is_empty()) {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(Record {
        method: method.to_owned(),
        host: host.to_owned(),
        target: target.to_owned(),
        headers,
        body: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_both_forms_are_read() {
        let log = concat!(
            "{\"method\":\"GET\",\"host\":\"a.test\",\"uri\":\"/x?y=1\",\"headers\":{\"X-A\":\"b\",\"Connection\":\"close\"}}\n\n",
            "1.2.3.4 - - [10/Oct/2026:13:55:36 +0000] \"HEAD /z HTTP/1.1\" 200 5 \"-\" \"curl/8\" 10 0.01\n"
        );
        let found = parse(log, Some("b.test")).unwrap();
        assert_eq!(found[0].headers, [("X-A".to_owned(), "b".to_owned())]);
        assert_eq!((found[0].host.as_str(), found[0].target.as_str()), ("a.test", "/x?y=1"));
        assert_eq!(
            (found[1].method.as_str(), found[1].host.as_str(), found[1].target.as_str()),
            ("HEAD", "b.test", "/z")
        );
        assert_eq!(found[1].headers, [("user-agent".to_owned(), "curl/8".to_owned())]);
        for (line, why) in [
            ("{\"uri\":\"/\"}", "names no host"),
            ("{", "no JSON"),
            ("hello", "names no host"),
            ("{\"host\":\"a\"}", "no path"),
        ] {
            assert!(parse(line, None).unwrap_err().contains(why), "{line}");
        }
    }
}
