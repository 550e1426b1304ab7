//! Which server a TLS connection asks for, read before anybody answers: the listener of that name ends TLS or passes it on.

use std::io;

use atoll_reach::{BoxStream, again};
use rustls::server::Acceptor;
use tokio::io::AsyncReadExt as _;

/// A hello is at most this long.
const HELLO_BYTES_MAX: usize = 64 * 1024;

/// The server name of the hello, in lower case, empty where there is none; the stream that comes back gives the hello again.
///
/// # Errors
/// The client broke off, or what it said is no hello.
pub(crate) async fn hello(mut stream: BoxStream) -> io::Result<(String, BoxStream)> {
    let (mut acceptor, mut seen) = (Acceptor::default(), Vec::new());
    loop {
        let start = seen.len();
        if start >= HELLO_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the hello is too long"));
        }
        if stream.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut fresh = &seen[start..];
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().unwrap_or_default().to_ascii_lowercase();
                    return Ok((name, again(seen, stream)));
                }
                Err((error, _)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn said(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn the_name_is_read_and_nothing_is_lost() {
        for (sent, name) in [
            (said("A.Example"), Some("a.example")),
            (said("127.0.0.1"), Some("")),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), None),
            (Vec::new(), None),
            (said("a.example")[..20].to_vec(), None),
        ] {
            let (near, mut far) = tokio::io::duplex(64 * 1024);
            far.write_all(&sent).await.unwrap();
            far.shutdown().await.unwrap();
            let found = hello(Box::new(near)).await;
            assert_eq!(found.as_ref().ok().map(|(name, _)| name.as_str()), name);
            if let Ok((_, mut stream)) = found {
                let mut got = Vec::new();
                stream.read_to_end(&mut got).await.unwrap();
                assert_eq!(got, sent);
            }
        }
    }
}
