//! The eight extension points: a new entry is one file and one row.
//!
//! In: the files of each module's folder. One of them, or the module's own, holds the table; another one without a row in it is
//! a breach, as is a table that is gone.

use crate::{
    Breach,
    tree::{Tree, is_test},
};

/// Module and table; the module's file is `<module>.rs` or `<module>/mod.rs`, its plugins lie in `<module>/`, and so
/// may the table.
const TABLES: &[(&str, &str)] = &[
    ("api/src/routing", "POLICIES"),
    ("federation/src/placement/score", "SCORERS"),
    ("federation/registry/src/backend", "BACKENDS"),
    ("dns/src/transport", "TRANSPORTS"),
    ("src/cli/stub", "RESOLVERS"),
    ("gateway/src/filter", "FILTERS"),
    ("gateway/src/kinds", "KINDS"),
    ("gateway/src/provider", "PROVIDERS"),
];

/// Every plugin file stands in its table.
pub(crate) fn rows(tree: &Tree) -> Vec<Breach> {
    TABLES.iter().flat_map(|(module, table)| missing(tree, module, table)).collect()
}

fn missing(tree: &Tree, module: &str, table: &str) -> Vec<Breach> {
    let folder = format!("{module}/");
    let own = |path: &str| {
        path == format!("{module}.rs") || path.strip_prefix(&folder).is_some_and(|rest| !rest.contains('/'))
    };
    let holder = tree.sources().filter(|source| own(source.path)).find_map(|source| {
        let body = body(&source.code, table)?.to_owned();
        Some((source.path.to_owned(), body))
    });
    let Some((home, body)) = holder else {
        return vec![Breach::new(module, format!("no table `{table}`"), "keep the table: it is how plugins are found")];
    };
    let rowless = plugins(tree, module)
        .into_iter()
        .filter(|plugin| !body.contains(&format!("{plugin}::")) && home != format!("{module}/{plugin}.rs"));
    let todo = "add its row, or move what is no plugin out of the folder";
    rowless.map(|plugin| Breach::new(format!("{module}/{plugin}"), format!("no row in `{table}`"), todo)).collect()
}

/// What stands between the table's name and the end of its item.
fn body<'a>(code: &'a str, table: &str) -> Option<&'a str> {
    let start = ["const ", "static "].iter().find_map(|word| code.find(&format!("{word}{table}")))?;
    let rest = &code[start..];
    Some(&rest[..rest.find("];").unwrap_or(rest.len())])
}

/// Files and folders that lie directly in the module's folder.
fn plugins(tree: &Tree, module: &str) -> Vec<String> {
    let folder = format!("{module}/");
    let inside = tree.files().filter_map(|(path, _)| path.strip_prefix(&folder));
    let rust = inside.filter(|path| path.ends_with(".rs") && *path != "mod.rs" && !is_test(path));
    let mut names: Vec<String> =
        rust.map(|path| path.split('/').next().unwrap_or(path).trim_end_matches(".rs").to_owned()).collect();
    names.dedup();
    names
}

#[test]
fn a_plugin_without_a_row_and_a_table_that_is_gone_are_found() {
    let table = "pub const T: &[Row] = &[(\"b\", b::new), (\"c\", c::new)];";
    let cases: &[(&[(&str, &str)], usize)] = &[
        (&[("x/p.rs", table), ("x/p/b.rs", ""), ("x/p/c/mod.rs", ""), ("x/p/tests.rs", "")], 0),
        (&[("x/p/mod.rs", table), ("x/p/b.rs", ""), ("x/p/d.rs", "")], 1),
        (&[("x/p/mod.rs", table), ("x/p/d/mod.rs", ""), ("x/p/d/e.rs", "")], 1),
        (&[("x/p/mod.rs", "mod t;"), ("x/p/t.rs", table), ("x/p/b.rs", "")], 0),
        (&[("x/p/mod.rs", "mod t;"), ("x/p/t.rs", table), ("x/p/b.rs", ""), ("x/p/e.rs", "")], 1),
        (&[("x/p/mod.rs", "mod d; fn f() { d::new() }"), ("x/p/d.rs", "")], 1),
        (&[("x/q/mod.rs", "")], 1),
    ];
    for (files, expected) in cases {
        assert_eq!(missing(&Tree::of(files), "x/p", "T").len(), *expected, "{files:?}");
    }
}
