//! Queries of targets: pairs of names and values (WHATWG URL, "application/x-www-form-urlencoded"). Pure.

/// The value of the first pair of that name, as it is written; what has no `=` is no pair.
pub(crate) fn find<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pair_of_a_name_counts() {
        for (name, value) in [("a", Some("1=x")), ("b", Some("")), ("c", None), ("d", None), ("", Some("e"))] {
            assert_eq!(find("c&a=1=x&b=&a=2&=e", name), value, "{name}");
        }
    }
}
