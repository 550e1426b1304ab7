//! How a user's groups stand in one annotation: joined by commas, with `%` and `,` inside a name percent-escaped.
//!
//! In: groups as the API server knows them. Out: the annotation's value, and back. Plain names stand as they are. Whoever checks a
//! stamp in CEL says the same by [`JOIN_GROUPS_CEL`]. Source: RFC 3986 §2.1 (the escapes).

/// The groups of `request.userInfo` as [`join_groups`] writes them, in CEL.
pub const JOIN_GROUPS_CEL: &str =
    "request.userInfo.?groups.orValue([]).map(g, g.replace('%', '%25').replace(',', '%2C')).join(',')";

/// The value of an annotation that holds `groups`.
pub fn join_groups<G: AsRef<str>>(groups: impl IntoIterator<Item = G>) -> String {
    let escaped = groups.into_iter().map(|group| group.as_ref().replace('%', "%25").replace(',', "%2C"));
    escaped.collect::<Vec<_>>().join(",")
}

/// The groups in an annotation's value. A `%` that begins none of our escapes stands for itself.
pub fn split_groups(value: &str) -> Vec<String> {
    let groups = value.split(',').filter(|group| !group.is_empty());
    groups.map(|group| group.replace("%2C", ",").replace("%25", "%")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_back_as_they_were_and_plain_ones_stand_plainly() {
        for (groups, value) in [
            (&[][..], ""),
            (&["developers", "system:authenticated"], "developers,system:authenticated"),
            (&["visitors,approvers"], "visitors%2Capprovers"),
            (&["100%", "a%2Cb", "CN=ops,O=shop"], "100%25,a%252Cb,CN=ops%2CO=shop"),
        ] {
            assert_eq!(join_groups(groups), value);
            assert_eq!(split_groups(value), groups, "{value}");
        }
        assert_eq!(split_groups("100%,ops"), ["100%", "ops"], "as it was written before");
    }
}
