//! Who may be reached, and how: streams, identities, relays, and the dialer that puts them together.
//!
//! ```text
//!   dial(cluster, host, port)
//!        │ route? (spec, overlap, probes)
//!        ├── direct ─────────► Connect ─────────────────────────────► host:port
//!        └── relay ──► RelayTable ══ HTTP/2 over the agent's own mTLS ══► serve_relay ─► Connect ─► host:port
//! ```
//!
//! Beside it what every port needs: bounds for strangers ([`Door`], [`sniff()`]) and a small HTTP server.
//!
//! Goes in: sockets opened by `src/`, identities issued by the hub, where members' addresses are. Comes out: byte
//! streams. Never: reads configuration, issues certificates, knows what flows through a stream.

mod stream;

mod error;

mod role;

mod identity;

mod revoke;

mod material;

mod signatures;

mod unjudged;

mod verify;

mod tls;

mod tunnel;

mod door;

mod sniff;

mod http;

mod keepalive;

mod relay;

mod serve;

mod dial;

mod packets;

mod probe;

mod starved;

mod check;

pub mod proxy;

mod targets;

#[cfg(test)]
mod testing;

pub use check::Checks;
pub use dial::{DialError, Dialer};
pub use door::{Door, Guest, neighbourhood};
pub use error::IdentityError;
pub use http::serve_http;
pub use identity::{Identity, ca_pin};
pub use keepalive::Keepalive;
pub use packets::{Packet, Succession};
pub use probe::{Prober, Route, Routes, Target, Want};
pub use relay::{AGAIN, RELAY_ALPN, REPLICA, RelayError, RelayTable, accept_relay};
pub use revoke::{Cut, Revocations};
pub use role::{Peer, Role, Serial};
pub use serve::{Allow, serve_relay};
pub use sniff::{again, sniff, tcp};
pub use starved::is_starved;
pub use stream::{Accept, BoxStream, Connect, Listen, Stream, System, host_and_port, listener, udp_connected};
pub use targets::{probe_members, targets_of};
pub use tls::{ClientAuth, Secured, TlsIdentity, pinned};
pub use tunnel::REASON_HEADER;
pub use unjudged::AnyCertificate;
pub use verify::Expect;
