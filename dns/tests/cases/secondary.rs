//! A secondary's ear for NOTIFY (RFC 1996): it answers, or not, and remembers what it was told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, OpCode};
use hickory_proto::rr::{RData, TSigner};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// A secondary.
pub(crate) struct Secondary {
    pub(crate) at: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    deaf: Arc<Mutex<bool>>,
    task: AbortHandle,
}

impl Secondary {
    /// One at any port; `key` is what it believes.
    pub(crate) async fn new(key: Option<TSigner>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let (heard, deaf) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(false)));
        let task = tokio::spawn(listen(socket, key, Arc::clone(&heard), Arc::clone(&deaf))).abort_handle();
        Self { at, heard, deaf, task }
    }

    /// What it was told so far: `zone. serial N signed|unsigned|bad`.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Whether it gives no answer.
    pub(crate) fn deafen(&self, deaf: bool) {
        *self.deaf.lock().unwrap() = deaf;
    }
}

impl Drop for Secondary {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(socket: UdpSocket, key: Option<TSigner>, heard: Arc<Mutex<Vec<String>>>, deaf: Arc<Mutex<bool>>) {
    let mut packet = vec![0; 4096];
    while let Ok((len, from)) = socket.recv_from(&mut packet).await {
        let octets = &packet[..len];
        let Ok(message) = Message::from_vec(octets) else { continue };
        // RFC 1996 §3.7: the new SOA may stand in the answer section.
        let serial = message.answers.iter().find_map(|r| match &r.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        });
        let signed = match (message.signature(), &key) {
            (None, _) => "unsigned",
            (Some(_), Some(key)) if key.verify_message_byte(octets, None, true).is_ok() => "signed",
            (Some(_), _) => "bad",
        };
        assert_eq!(message.metadata.op_code, OpCode::Notify);
        let line = format!("{} serial {} {signed}", message.queries[0].name, serial.unwrap_or_default());
        heard.lock().unwrap().push(line);
        if !*deaf.lock().unwrap() {
            let mut reply = Message::response(message.metadata.id, OpCode::Notify);
            reply.queries = message.queries.clone();
            let _ = socket.send_to(&reply.to_vec().unwrap(), from).await;
        }
    }
}
