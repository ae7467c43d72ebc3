//! What requests are sent to, and what sends them: HTTP/1.1 or gRPC.

use std::net::SocketAddr;

use super::{
    http::Connection,
    load::broken,
    tally::{Ended, Ending},
};

/// So much of an error is kept to be shown.
const WORDS: usize = 400;

fn kept(status: u16) -> usize {
    if Ending::Http(status).is_success() {
        0
    } else {
        WORDS
    }
}

/// Requests that are ready to be sent, and where to.
#[derive(Debug)]
pub struct Target {
    /// The one address that anything is sent to.
    pub address: SocketAddr,
    /// Whole requests, head and body; sent in turn.
    pub requests: Vec<Vec<u8>>,
}

impl Target {
    /// How many different requests there are; at least one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len().max(1)
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

/// One client with a connection of its own.
#[derive(Debug)]
pub struct Client(Connection);

impl Client {
    /// Not connected yet.
    #[must_use]
    pub fn new(target: &Target) -> Self {
        Self(Connection::new(target.address))
    }

    /// Connects; a refusal shows when a request is sent.
    pub async fn open(&mut self) {
        let _ = self.0.open().await;
    }

    /// Gives the connection up: its next answer would be that of an earlier request.
    pub fn close(&mut self) {
        self.0.close();
    }

    /// Sends the request of that number and waits for its end.
    pub async fn exchange(&mut self, target: &Target, number: usize) -> Ended {
        let Some(request) = target.requests.get(number) else {
            return broken(super::http::Broken::Closed);
        };
        match self.0.exchange(request, kept).await {
            Ok(answer) => {
                let ending = Ending::Http(answer.status);
                let words = if ending.is_success() {
                    String::new()
                } else {
                    String::from_utf8_lossy(&answer.body).trim().to_owned()
                };
                Ended {
                    ending,
                    bytes: answer.bytes,
                    words,
                }
            }
            Err(reason) => broken(reason),
        }
    }
}
