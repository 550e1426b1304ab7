//! Corefiles of the wild, and those that must be left alone.

use super::*;

const BLOCK: &str = "atoll.internal clusterset.local {\n    errors\n    forward . 192.0.2.53:53\n}";
const ZONES: [&str; 3] = ["atoll.internal", "clusterset.local", "2.10.in-addr.arpa"];

const KUBEADM: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
";

#[test]
fn a_block_goes_in_where_pods_ask_and_out_again_without_a_trace() {
    for (name, corefile, head, remark) in [
        ("kubeadm", KUBEADM.to_owned(), "atoll.internal:53 clusterset.local:53 {\n    errors", false),
        ("another port", KUBEADM.replace(".:53", ".:5353"), "atoll.internal:5353 clusterset.local:5353 {", false),
        ("no port", KUBEADM.replace(".:53", "."), "atoll.internal clusterset.local {", false),
        (
            "with a scheme",
            KUBEADM.replace(".:53", "dns://.:1053"),
            "atoll.internal:1053 clusterset.local:1053 {",
            false,
        ),
        (
            "bound",
            KUBEADM.replace("    ready\n", "    bind 10.0.0.1 10.0.0.2\n"),
            "53 {\n    bind 10.0.0.1 10.0.0.2\n    errors",
            false,
        ),
        ("not reloading", KUBEADM.replace("    reload\n", ""), "atoll.internal:53", true),
        ("no last newline", KUBEADM.trim_end().to_owned(), "atoll.internal:53", false),
        (
            "hand-made blocks",
            format!("# ours, don't touch\ncorp.example:53 {{\n    forward . 10.9.9.9 # }}\n}}\n\n{KUBEADM}"),
            "atoll.internal:53",
            false,
        ),
        (
            "quotes",
            format!(
                "x.example {{\n    template IN A {{\n        answer \"{{{{ .Name }}}} 60 IN A \\\" {{ 10.0.0.1\"\n    }}\n}}\n{KUBEADM}"
            ),
            "atoll.internal:53",
            false,
        ),
        (
            "snippets and imports",
            format!("(snip) {{\n    errors\n}}\nimport custom/*.server\n{KUBEADM}"),
            "atoll.internal:53",
            false,
        ),
        ("other transports", format!("tls://atoll.internal {{\n    errors\n}}\n{KUBEADM}"), "atoll.internal:53", false),
        ("empty", String::new(), "atoll.internal clusterset.local {", true),
    ] {
        let (once, said) = with(&corefile, BLOCK, &ZONES).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(once.contains(head), "{name}: {once}");
        assert!(once.ends_with(&corefile), "{name}: nothing else is touched");
        assert_eq!(said.is_some(), remark, "{name}: {said:?}");
        assert_eq!(with(&once, BLOCK, &ZONES).unwrap().0, once, "{name}: once is enough");
        assert_eq!(without(&once).unwrap(), corefile, "{name}");
        let meddled = once.replace("forward . 192.0.2.53:53", "forward . 6.6.6.6");
        assert_eq!(with(&meddled, BLOCK, &ZONES).unwrap().0, once, "{name}: drift is mended");
    }
    assert_eq!(without(KUBEADM).unwrap(), KUBEADM);
}

#[test]
fn what_would_break_the_resolver_is_refused() {
    let server = |key: &str| format!("{key} {{\n    errors\n}}\n{KUBEADM}");
    for (corefile, says) in [
        (server("atoll.internal"), "zone `atoll.internal` is served by the block `atoll.internal`"),
        (server("dns://Atoll.Internal.:53"), "zone `atoll.internal`"),
        (server("a.example, clusterset.local:53"), "zone `clusterset.local`"),
        (server("10.2.0.0/16"), "zone `2.10.in-addr.arpa`"),
        (KUBEADM.trim_end().trim_end_matches('}').to_owned(), "the block of line 1 is not closed"),
        (format!("{KUBEADM}}}\n"), "line 21: a `}` that closes nothing"),
        (". {\n    answer \"x\n}\n".to_owned(), "line 2: a quotation that does not end"),
        (".:53\nerrors\n".to_owned(), "a server without braces"),
        (format!("{BEGIN}\n{KUBEADM}"), "without an end"),
        (format!("{END}\n{KUBEADM}"), "without a begin"),
        (format!("{BEGIN}\n{END}\n{BEGIN}\n{END}\n{KUBEADM}"), "twice"),
    ] {
        let why = with(&corefile, BLOCK, &ZONES).unwrap_err();
        assert!(why.contains(says), "{corefile}: {why}");
    }
}

#[test]
fn a_corefile_that_imports_the_custom_directory_is_told_from_others() {
    for (line, custom) in [
        ("import custom/*.server", true),
        ("import /etc/coredns/custom/*.server", true),
        ("import custom/*.override", false),
        ("import other/*.server", false),
        ("# import custom/*.server", false),
    ] {
        assert_eq!(imports_custom(&format!("{KUBEADM}{line}\n")), custom, "{line}");
    }
    let corefile = format!("{KUBEADM}import custom/*.server\n");
    let file = beside(&corefile, ["corp.example {\n    errors\n}\n"], BLOCK, &ZONES).unwrap();
    assert!(file.starts_with(BEGIN) && file.contains("atoll.internal:53 clusterset.local:53 {"), "{file}");
    let why = beside(&corefile, ["clusterset.local {\n    errors\n}\n"], BLOCK, &ZONES).unwrap_err();
    assert!(why.contains("zone `clusterset.local`"), "{why}");
}
