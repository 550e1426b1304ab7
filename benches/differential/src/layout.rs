//! Which zones there are, and the labels that names are made of. Pure.

/// What a zone is like.
pub(crate) struct Layout {
    pub(crate) apex: &'static str,
    /// Names by chance.
    pub(crate) names: usize,
    /// How many of a hundred names begin with an asterisk.
    pub(crate) wild: usize,
    /// Sets that no datagram holds, and delegations with much glue.
    pub(crate) long: usize,
    /// Zones of ours that are delegated in it.
    pub(crate) children: &'static [&'static str],
    pub(crate) signed: bool,
}

const PLAIN: Layout = Layout { apex: "", names: 150, wild: 8, long: 0, children: &[], signed: false };

/// Every zone.
pub(crate) const LAYOUTS: &[Layout] = &[
    Layout { apex: "one.test", children: &["child.one.test"], ..PLAIN },
    Layout { apex: "child.one.test", names: 60, ..PLAIN },
    Layout { apex: "two.test", names: 400, ..PLAIN },
    Layout { apex: "wild.test", names: 120, wild: 40, ..PLAIN },
    Layout { apex: "long.test", names: 20, long: 12, ..PLAIN },
    Layout {
        apex: "a-label-of-sixty-three-octets-which-is-as-many-as-there-may-be1.a-label-of-sixty-three-octets-which-is-as-many-as-there-may-be2.deep.test",
        names: 80,
        ..PLAIN
    },
    Layout { apex: "safe.test", signed: true, ..PLAIN },
    Layout { apex: "wildsafe.test", names: 80, wild: 30, long: 4, signed: true, ..PLAIN },
];

/// Labels: few, so that names meet; the plain ones more often; of any octets (RFC 2181 §11).
pub(crate) const LABELS: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"www",
    b"mail",
    b"x",
    b"y",
    b"_tcp",
    b"_sip",
    b"k8s",
    b"api",
    b"db",
    b"a",
    b"b",
    b"c",
    b"www",
    b"x",
    b"web",
    b"shop",
    b"ns1",
    b"api",
    b"db",
    b"cache",
    b"queue",
    b"xn--bcher-kva",
    b"a",
    b"b",
    b"c",
    b"www",
    b"Mail",
    b"x",
    b"y",
    b"_tcp",
    b"_sip",
    b"k8s",
    b"api",
    b"db",
    b"a.b",
    b"\x00",
    b"\xff\x80",
    b"sp ace",
    b"q\"uote",
    b"back\\slash",
    b"semi;colon",
    b"star*",
    b"at@",
    b"dollar$",
    b"paren(theses)",
    b"xn--bcher-kva",
    b"a-rather-long-label-that-takes-some-octets-in-every-name-of-it",
];
