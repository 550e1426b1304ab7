//! Ports that appear at run time, those of Gateways for example, in a process that hands none on to another (of one that does see `handover`).
//!
//! In: addresses. Out: sockets bound there, or bind(2)'s error as it is: parts tell one that is taken from one that is not ours.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use atoll_reach::{Accept, Listen, listener};
use tokio::net::UdpSocket;

/// Binds each anew.
pub(crate) struct Fresh;

#[async_trait]
impl Listen for Fresh {
    async fn tcp(&self, addr: SocketAddr) -> io::Result<Box<dyn Accept>> {
        listener(super::tcp_at(addr)?)
    }

    async fn udp(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::from_std(super::alone(addr)?)
    }
}
