//! Repositories of images, and the patterns by which policies name them. Pure.
//!
//! In: an image as people write it (`shop/web:2`, `shop/web@sha256:…`), and patterns (`shop/*`). Out: its repository, and whether a pattern
//! takes that.

/// The repository of an image as asked for: `shop/web:2` → `shop/web`.
pub fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

/// Whether a repository fits a pattern, in which `*` stands for any characters. What stands between two of them is taken where it comes
/// first, which leaves most for the rest: no pattern takes longer than its length times that of the text.
pub fn fits(pattern: &str, repository: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = repository.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_of_its_repository() {
        for (image, is) in [
            ("shop/web:2", "shop/web"),
            ("shop/web", "shop/web"),
            ("shop/web:2@sha256:00", "shop/web"),
            ("registry:5000/shop/web", "registry:5000/shop/web"),
        ] {
            assert_eq!(repository(image), is, "{image}");
        }
    }

    #[test]
    fn patterns_fit_as_they_read_and_none_takes_long() {
        let many = "*a".repeat(60);
        for (pattern, repository, is) in [
            ("shop/web", "shop/web", true),
            ("shop/web", "shop/web2", false),
            ("shop/*", "shop/web", true),
            ("shop/*", "shop/", true),
            ("shop/*", "shops/web", false),
            ("*/web", "shop/web", true),
            ("*/web", "shop/web2", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("a**b", "ab", true),
            ("*é*", "café/x", true),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            (&format!("{many}*b"), &"a".repeat(4000), false),
        ] {
            assert_eq!(fits(pattern, repository), is, "{pattern} {repository}");
        }
    }
}
