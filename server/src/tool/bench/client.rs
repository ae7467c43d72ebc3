//! What requests are sent to, and what sends them: HTTP/1.1 or gRPC.

use std::net::SocketAddr;

use bytes::Bytes;

use super::{
    grpc,
    http::{Broken, Connection},
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

/// What is spoken.
#[derive(Clone, Debug)]
pub enum Wire {
    /// HTTP/1.1; a request is its head and its body.
    Http,
    /// gRPC; a request is a framed message.
    Grpc {
        /// What all calls begin with.
        head: Box<http::request::Parts>,
        /// So many clients share a connection.
        streams: usize,
    },
}

/// Requests that are ready to be sent, and where to.
#[derive(Debug)]
pub struct Target {
    /// The one address that anything is sent to.
    pub address: SocketAddr,
    /// What is spoken there.
    pub wire: Wire,
    /// Sent in turn.
    pub requests: Vec<Bytes>,
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

    /// Clients with open connections, so that no request pays for one. A refusal shows when a request is sent.
    pub async fn clients(&self, how_many: usize) -> Vec<Client> {
        let mut clients: Vec<Client> = Vec::new();
        for number in 0..how_many {
            let shared = match (&self.wire, clients.last()) {
                (Wire::Grpc { streams, .. }, Some(Client::Grpc(last))) if number % streams != 0 => {
                    Some(Client::Grpc(last.clone()))
                }
                _ => None,
            };
            let mut client = shared.unwrap_or_else(|| Client::new(self));
            client.open().await;
            clients.push(client);
        }
        clients
    }
}

/// Sends one request at a time.
#[derive(Debug)]
pub enum Client {
    /// With a connection of its own.
    Http(Connection),
    /// On a stream of a connection that others may share.
    Grpc(grpc::Connection),
}

impl Client {
    /// Not connected yet.
    #[must_use]
    pub fn new(target: &Target) -> Self {
        match target.wire {
            Wire::Http => Self::Http(Connection::new(target.address)),
            Wire::Grpc { .. } => Self::Grpc(grpc::Connection::new(target.address)),
        }
    }

    async fn open(&mut self) {
        let _ = match self {
            Self::Http(connection) => connection.open().await,
            Self::Grpc(connection) => connection.open().await,
        };
    }

    /// Gives a request up that got no answer. On HTTP/1.1 the connection goes with it: its next answer would be that
    /// request's. A call is a stream, which ended when it was dropped.
    pub fn give_up(&mut self) {
        if let Self::Http(connection) = self {
            connection.close();
        }
    }

    /// Sends the request of that number and waits for its end.
    pub async fn exchange(&mut self, target: &Target, number: usize) -> Ended {
        let Some(request) = target.requests.get(number) else {
            return broken(Broken::Closed);
        };
        let ended = match (self, &target.wire) {
            (Self::Grpc(connection), Wire::Grpc { head, .. }) => {
                let called = connection.call(head, request.clone()).await;
                called.map(|called| Ended {
                    ending: Ending::Grpc(called.code),
                    bytes: called.message.len() as u64,
                    words: called.words,
                    connected: false,
                })
            }
            (Self::Http(connection), _) => {
                let before = connection.opened;
                let answer = connection.exchange(request, kept).await;
                let connected = connection.opened > before;
                answer.map(|answer| Ended {
                    ending: Ending::Http(answer.status),
                    bytes: answer.bytes,
                    words: String::from_utf8_lossy(&answer.body).trim().to_owned(),
                    connected,
                })
            }
            (Self::Grpc(_), Wire::Http) => Err(Broken::Malformed),
        };
        ended.unwrap_or_else(broken)
    }
}
