//! TLS of QUIC: the client's hello is read first, and the listener of the name that it asks for ends TLS, as over TCP.
//!
//! ```text
//!   hello (buffered) ─► server name ─► listener of the table as it is now ─► its certificates, its check of clients, ALPN h3
//! ```
//!
//! In: handshake octets. Out: a session of rustls. Settings are those of the table at that moment, so that what changes reaches the next
//! connection. There is no early data (0-RTT): what it carries can be replayed. Source: RFC 9001 §4, RFC 9114 §3.1.

use std::any::Any;
use std::sync::Arc;

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
};
use quinn::{ConnectionId, Side, TransportErrorCode};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use rustls::server::{Acceptor, ResolvesServerCertUsingSni};

use crate::plane::Plane;
use crate::table::{Mode, Slot};

const ALPN: &[u8] = b"h3";
/// A hello is at most this long.
const HELLO_BYTES_MAX: usize = 64 * 1024;
/// What a record of TLS holds at most (RFC 8446 §5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// Alerts (RFC 8446 §6).
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;
const UNRECOGNIZED_NAME: u8 = 112;

/// TLS as the listeners of a slot speak it.
pub(super) struct Names {
    plane: Arc<Plane>,
    slot: Slot,
    /// Knows what is the same for all names: how first packets are protected.
    base: Arc<QuicServerConfig>,
    initial: rustls::quic::Suite,
}

/// What was agreed on in a handshake.
pub(super) struct Agreed {
    /// The name asked for, in lower case.
    pub(super) name: Option<String>,
    /// A certificate that the client showed is vouched for.
    pub(super) verifies: bool,
}

impl Names {
    /// # Errors
    /// The library knows no TLS 1.3, a bug.
    pub(super) fn new(plane: Arc<Plane>, slot: Slot) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let nobody = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        let first = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13();
        let initial = first.and_then(rustls::Tls13CipherSuite::quic_suite).ok_or("first packets can't be protected")?;
        let base = QuicServerConfig::with_initial(Arc::new(nobody), initial).map_err(|error| error.to_string())?;
        Ok(Self { plane, slot, base: Arc::new(base), initial })
    }

    /// TLS of the listener of a name, and whether it vouches for clients' certificates; nothing where none takes requests.
    fn of(&self, name: &str) -> Option<(Arc<QuicServerConfig>, bool)> {
        let snapshot = self.plane.snapshots.load();
        let listener = snapshot.as_ref()?.table.listener(self.slot, name)?;
        let mut config =
            rustls::ServerConfig::clone(listener.server.as_ref().filter(|_| listener.mode == Mode::Requests)?);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        // First packets are protected in the same way, whichever ciphers the listener speaks later (RFC 9001 §5.2).
        let config = QuicServerConfig::with_initial(Arc::new(config), self.initial).ok()?;
        Some((Arc::new(config), listener.verifies))
    }
}

impl ServerConfig for Names {
    fn initial_keys(&self, version: u32, destination: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.base.initial_keys(version, destination)
    }

    fn retry_tag(&self, version: u32, original: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.base.retry_tag(version, original, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, parameters: &TransportParameters) -> Box<dyn Session> {
        // Until the name is known; it never gets as far as a certificate.
        let inner = Arc::clone(&self.base).start_session(version, parameters);
        Box::new(Named {
            names: self,
            version,
            parameters: *parameters,
            hello: Some(Vec::new()),
            verifies: false,
            inner,
        })
    }
}

/// A session that is its listener's once it knows the name.
struct Named {
    names: Arc<Names>,
    version: u32,
    parameters: TransportParameters,
    /// What was read of the hello; nothing: the name is known.
    hello: Option<Vec<u8>>,
    verifies: bool,
    inner: Box<dyn Session>,
}

impl Session for Named {
    fn read_handshake(&mut self, octets: &[u8]) -> Result<bool, TransportError> {
        let Some(hello) = &mut self.hello else { return self.inner.read_handshake(octets) };
        hello.extend_from_slice(octets);
        let Some(name) = name(hello)? else { return Ok(false) };
        let hello = self.hello.take().unwrap_or_default();
        let found = self.names.of(&name).ok_or_else(|| alert(UNRECOGNIZED_NAME, "no listener takes that name"));
        let (config, verifies) = found?;
        self.verifies = verifies;
        self.inner = config.start_session(self.version, &self.parameters);
        self.inner.read_handshake(&hello)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let data = self.inner.handshake_data()?.downcast::<HandshakeData>().ok()?;
        let name = data.server_name.map(|name| name.to_ascii_lowercase());
        Some(Box::new(Agreed { name, verifies: self.verifies }))
    }

    fn is_handshaking(&self) -> bool {
        self.hello.is_some() || self.inner.is_handshaking()
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        if self.hello.is_some() { None } else { self.inner.write_handshake(out) }
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        if self.hello.is_some() { Ok(None) } else { self.inner.transport_parameters() }
    }

    fn initial_keys(&self, destination: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(destination, side)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, original: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(original, header, payload)
    }

    fn export_keying_material(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(out, label, context)
    }
}

fn alert(code: u8, why: &str) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(code), frame: None, reason: why.to_owned() }
}

/// The server name of a hello, in lower case, empty where there is none; nothing where the hello is not whole yet.
fn name(hello: &[u8]) -> Result<Option<String>, TransportError> {
    let Some([_, high, middle, low]) = hello.first_chunk::<4>() else { return Ok(None) };
    let whole = 4 + usize::from(*high) * 0x1_0000 + usize::from(*middle) * 0x100 + usize::from(*low);
    if whole > HELLO_BYTES_MAX {
        return Err(alert(DECODE_ERROR, "the hello is too long"));
    }
    let Some(hello) = hello.get(..whole) else { return Ok(None) };
    // QUIC carries messages without records, and who reads hellos wants them in some.
    let mut acceptor = Acceptor::default();
    for message in hello.chunks(RECORD_BYTES_MAX) {
        let mut record = vec![22, 3, 1];
        record.extend_from_slice(&u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes());
        record.extend_from_slice(message);
        let mut record = record.as_slice();
        while !record.is_empty() {
            acceptor.read_tls(&mut record).map_err(|_| alert(INTERNAL_ERROR, "the hello can't be read"))?;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return Ok(Some(accepted.client_hello().server_name().unwrap_or_default().to_ascii_lowercase()));
            }
            Err((error, _)) => return Err(alert(DECODE_ERROR, &error.to_string())),
        }
    }
    Err(alert(DECODE_ERROR, "the hello is none"))
}
