//! One gRPC call on one connection (HTTP/2 in clear text), its messages as they are on the wire: what they
//! mean is the tests' business. tonic frames them and reads the status; no pool, no retries.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::http::{Request, Response, Uri, uri::PathAndQuery};
use bytes::{Buf, BufMut, Bytes};
use futures::stream;
use hyper::{
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::{
    Status,
    body::Body,
    client::{Grpc, GrpcService},
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
};

use crate::ask::{Error, Target};

/// How a call ended, and what was answered until then.
pub struct Outcome {
    /// The messages.
    pub messages: Vec<Bytes>,
    /// OK, or what went wrong; a connection that breaks is UNAVAILABLE or UNKNOWN with its words.
    pub status: Status,
}

/// A connection.
pub struct Channel {
    sender: SendRequest<Body>,
    /// A call was given back before anything of it left.
    is_unsent: Arc<AtomicBool>,
}

impl Channel {
    /// Connects anew.
    pub async fn open(target: &Target) -> Result<Self, Error> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|source| Error::Http {
                stage: "handshake",
                source,
            })?;
        // Its end, good or bad, is seen by the sender.
        tokio::spawn(connection);
        Ok(Self {
            sender,
            is_unsent: Arc::default(),
        })
    }

    /// Whether another call may be made on it: the server has not said that it goes away.
    pub fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Whether nothing of the last call left: the word that the server goes away came just before it.
    pub fn sent_nothing(&self) -> bool {
        self.is_unsent.load(Ordering::Relaxed)
    }

    /// Makes one call: sends the messages, which is one for a unary call, and reads to the end.
    pub async fn call(&mut self, target: &Target, messages: Vec<Bytes>) -> Outcome {
        let mut answered = Vec::new();
        let status = match self.read(target, messages, &mut answered).await {
            Ok(()) => Status::ok(""),
            Err(status) => status,
        };
        Outcome {
            messages: answered,
            status,
        }
    }

    async fn read(
        &mut self,
        target: &Target,
        messages: Vec<Bytes>,
        answered: &mut Vec<Bytes>,
    ) -> Result<(), Status> {
        let bad = |error: String| Status::invalid_argument(error);
        let origin = format!("http://{}", target.host);
        let origin: Uri = origin.parse().map_err(|error| bad(format!("{error}")))?;
        let path: PathAndQuery = target
            .path
            .parse()
            .map_err(|error| bad(format!("{error}")))?;
        let mut client = Grpc::with_origin(self, origin);
        let mut request = tonic::Request::new(stream::iter(messages));
        *request.metadata_mut() = MetadataMap::from_headers(target.headers.clone());
        let mut answers = client.streaming(request, path, AsItIs).await?.into_inner();
        while let Some(message) = answers.message().await? {
            answered.push(message);
        }
        Ok(())
    }
}

impl GrpcService<Body> for &mut Channel {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.sender.try_send_request(request);
        let is_unsent = Arc::clone(&self.is_unsent);
        Box::pin(async move {
            answer.await.map_err(|mut error| {
                let given_back = error.take_message().is_some();
                is_unsent.store(given_back, Ordering::Relaxed);
                error.into_error()
            })
        })
    }
}

/// The bytes of a message are the message.
struct AsItIs;

impl Codec for AsItIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
