//! Chains of aliases, followed link by link (RFC 1034 §3.6.2). Pure.
//!
//! In: a name, and where each name leads. Out: the name at the end, and whether anything is there. Never: follows more than [`CHAIN_MAX`]
//! links, so that chains which go round end, too.

use hickory_proto::rr::Name;

/// RFC 1034 §3.6.2 leaves the length of chains open; so many links are followed.
pub(crate) const CHAIN_MAX: usize = 8;

/// Where a name leads.
pub(crate) enum Link {
    /// On to this one.
    On(Name),
    /// Nowhere else: what was asked for is there, or it is for others to say.
    End,
    /// There is nothing.
    Nothing,
}

/// Follows the chain from `at`: where it comes to, and whether anything is there.
///
/// # Errors
/// `too_long`, and what `link` fails with.
pub(crate) fn follow<E>(
    mut at: Name,
    too_long: E,
    mut link: impl FnMut(&Name) -> Result<Link, E>,
) -> Result<(Name, bool), E> {
    for _ in 0..=CHAIN_MAX {
        match link(&at)? {
            Link::On(target) => at = target,
            Link::End => return Ok((at, true)),
            Link::Nothing => return Ok((at, false)),
        }
    }
    Err(too_long)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(number: usize) -> Name {
        Name::from_ascii(format!("n{number}.example.")).unwrap()
    }

    #[test]
    fn eight_links_are_followed_and_no_more() {
        for (links, there, want) in [
            (0, true, Ok((n(0), true))),
            (8, true, Ok((n(8), true))),
            (8, false, Ok((n(8), false))),
            (9, true, Err("long")),
        ] {
            let mut seen = 0;
            let got = follow(n(0), "long", |at| {
                assert_eq!(*at, n(seen), "in order");
                seen += 1;
                Ok(match (seen <= links, there) {
                    (true, _) => Link::On(n(seen)),
                    (false, true) => Link::End,
                    (false, false) => Link::Nothing,
                })
            });
            assert_eq!(got, want, "{links}");
        }
        assert_eq!(follow(n(0), "long", |at| Ok(Link::On(at.clone()))), Err("long"), "round and round");
        assert_eq!(follow(n(0), "long", |_| Err("broken")), Err("broken"));
    }
}
