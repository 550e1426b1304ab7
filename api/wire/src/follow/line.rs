//! The connection to the hub that is open just now, for what can't wait for the next word: updates of zones.
//!
//! In: a call. Out: the hub's answer within a time, or why there is none. Never queues: without a connection it says so at once.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::v1::{self, zones_client::ZonesClient};

/// The way to the hub, while it is open. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Line(watch::Receiver<Option<Channel>>);

/// An end of a line, and the line.
pub(super) fn new() -> (watch::Sender<Option<Channel>>, Line) {
    let (sender, receiver) = watch::channel(None);
    (sender, Line(receiver))
}

impl Line {
    /// A line to nobody.
    pub fn dead() -> Self {
        new().1
    }

    /// A line over `channel`, for good.
    pub fn over(channel: Channel) -> Self {
        Self(watch::channel(Some(channel)).1)
    }

    /// Passes on an update of a zone.
    ///
    /// # Errors
    /// When the hub is not connected, refuses the call or does not answer in time. Whether it has stored the update is unknown then.
    pub async fn update(&self, update: v1::ZoneUpdate, within: Duration) -> Result<v1::ZoneUpdated, String> {
        let channel = self.0.borrow().clone().ok_or("the hub is not connected")?;
        let mut client = ZonesClient::new(channel);
        let answer = timeout(within, client.update(update)).await.map_err(|_| "the hub does not answer".to_owned())?;
        Ok(answer.map_err(|status| format!("the hub: {}", status.message()))?.into_inner())
    }
}
