//! `upstream-hash-by`: by what of a request its endpoint is chosen. Pure.
//!
//! In: words and variables of nginx. Out: [`KeyPart`]s, which are put together. Source: ingress-nginx, "Custom NGINX upstream hashing".

/// A part of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// As it stands there.
    Text(String),
    /// The client's address.
    Client,
    /// Path and query as they were asked for.
    Target,
    /// The path.
    Path,
    /// The query.
    Query,
    /// The host.
    Host,
    /// The method.
    Method,
    /// http or https.
    Scheme,
    /// A header.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Argument(String),
}

/// Reads an expression.
///
/// # Errors
/// A variable is not known.
pub(super) fn parse(written: &str) -> Result<Vec<KeyPart>, String> {
    let mut parts = Vec::new();
    let mut rest = written;
    while let Some(at) = rest.find('$') {
        if at > 0 {
            parts.push(KeyPart::Text(rest[..at].to_owned()));
        }
        let after = &rest[at + 1..];
        let (name, left) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(split) => split,
            None => {
                let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
                after.split_at(end)
            }
        };
        parts.push(variable(name).ok_or_else(|| format!("`${name}` is no variable that is known here"))?);
        rest = left;
    }
    if !rest.is_empty() {
        parts.push(KeyPart::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn variable(name: &str) -> Option<KeyPart> {
    let of = |prefix: &str| name.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    Some(match name {
        "remote_addr" | "binary_remote_addr" | "the_real_ip" => KeyPart::Client,
        "request_uri" => KeyPart::Target,
        "uri" | "document_uri" => KeyPart::Path,
        "args" | "query_string" => KeyPart::Query,
        "host" | "http_host" | "best_http_host" => KeyPart::Host,
        "request_method" => KeyPart::Method,
        "scheme" | "pass_access_scheme" => KeyPart::Scheme,
        _ => {
            if let Some(header) = of("http_") {
                KeyPart::Header(header.replace('_', "-"))
            } else if let Some(cookie) = of("cookie_") {
                KeyPart::Cookie(cookie.to_owned())
            } else {
                KeyPart::Argument(of("arg_")?.to_owned())
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_words_and_variables_that_are_known() {
        use KeyPart::{Argument, Client, Cookie, Header, Host, Path, Target, Text};
        for (written, expected) in [
            ("$remote_addr", vec![Client]),
            ("$request_uri", vec![Target]),
            ("$host$uri", vec![Host, Path]),
            ("${http_x_user}-v1", vec![Header("x-user".to_owned()), Text("-v1".to_owned())]),
            (
                "a $cookie_cart $arg_id",
                vec![Text("a ".to_owned()), Cookie("cart".to_owned()), Text(" ".to_owned()), Argument("id".to_owned())],
            ),
        ] {
            assert_eq!(parse(written).unwrap(), expected, "{written}");
        }
        for unknown in ["$request_time", "$", "${http_}", "$arg_"] {
            assert!(parse(unknown).is_err(), "{unknown}");
        }
    }
}
