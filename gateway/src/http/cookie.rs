//! Cookies of requests (RFC 6265 §5.4). Pure.

use http::{HeaderMap, header};

/// The value of the first cookie of that name. Names are compared as they are (RFC 6265 §4.1.2).
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let mut same = pairs.filter(|(n, _)| n.trim() == name);
    same.next().map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_name_counts_over_all_lines() {
        let mut headers = HeaderMap::new();
        for line in ["a=1; b = 2 ;c=\"3\"", "b=4; d=x=y", "no pair", "\u{80}=1"] {
            headers.append(header::COOKIE, header::HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        for (name, value) in
            [("a", Some("1")), ("b", Some("2")), ("c", Some("3")), ("d", Some("x=y")), ("A", None), ("no pair", None)]
        {
            assert_eq!(find(&headers, name), value, "{name}");
        }
    }
}
