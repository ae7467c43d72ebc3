//! One connection of HTTP/1.1 as a load generator needs it: a request that is ready as bytes goes out, the answer is
//! framed and dropped. Nothing is followed, retried or sent anywhere but to the address that the user named.
//!
//! Own code and not a client library because what it costs per request is taken from the server beside it.

use std::{fmt, io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Heads larger than this are no answer to a prediction.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
const READ: usize = 64 << 10;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// No connection.
    Refused,
    /// The connection ended before the answer did.
    Closed,
    /// Nothing within the time limit.
    Timeout,
    /// The answer is no HTTP/1.1.
    Malformed,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "no connection",
            Self::Closed => "connection closed before the answer",
            Self::Timeout => "no answer in time",
            Self::Malformed => "no valid answer",
        })
    }
}

/// An answer, its body dropped but for the beginning.
#[derive(Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The first bytes of the body, as many as were asked for.
    pub body: Vec<u8>,
    /// The whole answer's length on the wire.
    pub bytes: u64,
}

/// A connection that is opened when it is needed, and kept.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    /// How many times it was opened.
    pub opened: u64,
}

/// How the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    ToTheEnd,
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: usize,
    framing: Framing,
    closes: bool,
}

impl Connection {
    /// Not connected yet.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            buffer: Vec::with_capacity(READ),
            opened: 0,
        }
    }

    /// Connects unless it is connected.
    pub async fn open(&mut self) -> Result<(), Broken> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address)
                .await
                .map_err(|_| Broken::Refused)?;
            // A request is one write: nothing is gained by waiting for more of it.
            let _ = stream.set_nodelay(true);
            self.buffer.clear();
            self.opened += 1;
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// Drops the connection: what comes on it is not the next answer any more.
    pub fn close(&mut self) {
        self.stream = None;
    }

    /// Sends a request and reads its answer. `keep` tells, by the status, how many bytes of its body are given.
    pub async fn exchange(
        &mut self,
        request: &[u8],
        keep: fn(u16) -> usize,
    ) -> Result<Answer, Broken> {
        self.open().await?;
        let done = self.converse(request, keep).await;
        match done {
            Ok((answer, true)) => Ok(answer),
            Ok((answer, false)) => {
                self.close();
                Ok(answer)
            }
            Err(broken) => {
                self.close();
                Err(broken)
            }
        }
    }

    /// The answer, and whether the connection may be used again.
    async fn converse(
        &mut self,
        request: &[u8],
        keep: fn(u16) -> usize,
    ) -> Result<(Answer, bool), Broken> {
        let Some(stream) = &mut self.stream else {
            return Err(Broken::Closed);
        };
        // A server may refuse a body before it has read it, and close: its answer is there all the same.
        let written = stream.write_all(request).await.is_ok();
        let mut reader = Reader {
            stream,
            buffer: &mut self.buffer,
            total: 0,
        };
        let head = loop {
            let head = reader.head().await?;
            // 100 Continue and 103 Early Hints announce the answer.
            if head.status >= 200 {
                break head;
            }
            reader.buffer.drain(..head.length);
        };
        reader.buffer.drain(..head.length);
        let mut body = Vec::new();
        reader
            .body(head.framing, keep(head.status), &mut body)
            .await?;
        let answer = Answer {
            status: head.status,
            body,
            bytes: reader.total,
        };
        let reusable = written && !head.closes && head.framing != Framing::ToTheEnd;
        Ok((answer, reusable))
    }
}

/// The bytes that came and were not used yet.
struct Reader<'c> {
    stream: &'c mut TcpStream,
    buffer: &'c mut Vec<u8>,
    total: u64,
}

impl Reader<'_> {
    /// Reads more; `false` at the end of the connection.
    async fn more(&mut self) -> Result<bool, Broken> {
        if self.buffer.capacity() - self.buffer.len() < READ / 4 {
            self.buffer.reserve(READ);
        }
        match self.stream.read_buf(self.buffer).await {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.total += n as u64;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(_) => Err(Broken::Closed),
        }
    }

    async fn head(&mut self) -> Result<Head, Broken> {
        loop {
            if let Some(head) = parse(self.buffer)? {
                return Ok(head);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(Broken::Malformed);
            }
            if !self.more().await? {
                return Err(Broken::Closed);
            }
        }
    }

    async fn body(
        &mut self,
        framing: Framing,
        keep: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        match framing {
            Framing::Length(length) => self.take(length, keep, into).await,
            Framing::Chunked => self.chunks(keep, into).await,
            Framing::ToTheEnd => loop {
                keep_some(self.buffer, keep, into);
                self.buffer.clear();
                if !self.more().await? {
                    return Ok(());
                }
            },
        }
    }

    /// Drops the next `length` bytes but for those that are kept.
    async fn take(&mut self, length: u64, keep: usize, into: &mut Vec<u8>) -> Result<(), Broken> {
        let mut left = length;
        loop {
            let here = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            keep_some(&self.buffer[..here], keep, into);
            self.buffer.drain(..here);
            left -= here as u64;
            if left == 0 {
                return Ok(());
            }
            if !self.more().await? {
                return Err(Broken::Closed);
            }
        }
    }

    async fn chunks(&mut self, keep: usize, into: &mut Vec<u8>) -> Result<(), Broken> {
        loop {
            match httparse::parse_chunk_size(self.buffer) {
                Err(_) => return Err(Broken::Malformed),
                Ok(httparse::Status::Partial) => {
                    if self.buffer.len() > MAX_HEAD {
                        return Err(Broken::Malformed);
                    }
                    if !self.more().await? {
                        return Err(Broken::Closed);
                    }
                }
                Ok(httparse::Status::Complete((line, 0))) => {
                    self.buffer.drain(..line);
                    return self.trailers().await;
                }
                Ok(httparse::Status::Complete((line, size))) => {
                    self.buffer.drain(..line);
                    self.take(size, keep, into).await?;
                    // The line break behind the chunk.
                    self.take(2, 0, &mut Vec::new()).await?;
                }
            }
        }
    }

    /// Everything up to the empty line.
    async fn trailers(&mut self) -> Result<(), Broken> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                self.buffer.drain(..end + 2);
                if end == 0 {
                    return Ok(());
                }
            } else if self.buffer.len() > MAX_HEAD {
                return Err(Broken::Malformed);
            } else if !self.more().await? {
                return Err(Broken::Closed);
            }
        }
    }
}

fn keep_some(bytes: &[u8], keep: usize, into: &mut Vec<u8>) {
    let room = keep.saturating_sub(into.len());
    into.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn parse(bytes: &[u8]) -> Result<Option<Head>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken::Malformed),
    };
    let status = response.code.ok_or(Broken::Malformed)?;
    let mut closes = response.version == Some(0);
    let mut framing = Framing::ToTheEnd;
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            framing = Framing::Length(value.parse().map_err(|_| Broken::Malformed)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding")
            && value.to_ascii_lowercase().ends_with("chunked")
        {
            framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            closes = value.eq_ignore_ascii_case("close")
                || (closes && !value.eq_ignore_ascii_case("keep-alive"));
        }
    }
    if status < 200 || status == 204 || status == 304 {
        framing = Framing::Length(0);
    }
    Ok(Some(Head {
        status,
        length,
        framing,
        closes,
    }))
}

#[cfg(test)]
mod tests;
