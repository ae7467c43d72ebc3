//! A connection's bytes: which HTTP they begin, and how long they may stand still on their way out.
//!
//! HTTP/2 without TLS begins with a fixed preface, HTTP/1.1 with anything else; the first bytes are looked at
//! and then given to whoever speaks that protocol. A client that takes nothing of what is written to it
//! is cut off after [`STALL`], so that its answer is not held for ever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A client that takes nothing for so long has gone.
pub const STALL: Duration = Duration::from_secs(30);
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

/// Bytes of a client, of which some were looked at already.
pub struct Wire<T> {
    io: T,
    first: [u8; PREFACE.len()],
    read: usize,
    given: usize,
    stall: Option<Pin<Box<Sleep>>>,
}

impl<T> Wire<T> {
    /// Nothing was looked at.
    pub fn new(io: T) -> Self {
        Self {
            io,
            first: [0; PREFACE.len()],
            read: 0,
            given: 0,
            stall: None,
        }
    }

    /// Fails once nothing was taken for [`STALL`].
    fn patience<O>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<O>>,
    ) -> Poll<io::Result<O>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client took nothing of its answer",
        )))
    }
}

impl<T: AsyncRead + Unpin> Wire<T> {
    /// Reads as far as is needed to tell which HTTP this is.
    pub async fn sniff(&mut self) -> io::Result<Http> {
        while self.read < PREFACE.len() {
            let more = self.io.read(&mut self.first[self.read..]).await?;
            self.read += more;
            if more == 0 || self.first[..self.read] != PREFACE[..self.read] {
                return Ok(Http::One);
            }
        }
        Ok(Http::Two)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.given < this.read {
            let left = &this.first[this.given..this.read];
            let some = &left[..left.len().min(into.remaining())];
            into.put_slice(some);
            this.given += some.len();
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.patience(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.patience(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.patience(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.io).poll_shutdown(cx);
        self.patience(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    async fn sniffed(parts: &[&[u8]]) -> (Http, Vec<u8>) {
        let (mut client, server) = duplex(1024);
        let mut wire = Wire::new(server);
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for part in parts {
                client.write_all(&part).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let http = wire.sniff().await.unwrap();
        writer.await.unwrap();
        let mut all = Vec::new();
        wire.read_to_end(&mut all).await.unwrap();
        (http, all)
    }

    #[tokio::test]
    async fn the_first_bytes_tell_which_http_it_is_and_none_is_lost() {
        let two = [&PREFACE[..], b"and more"].concat();
        for (parts, http) in [
            (&[&two[..]][..], Http::Two),
            (&[&two[..1], &two[1..15], &two[15..]], Http::Two),
            (&[b"POST /v2 HTTP/1.1\r\n\r\n"], Http::One),
            (&[b"P", b"RI * HTTP/1.1\r\n\r\n"], Http::One),
            (&[b"PRI"], Http::One),
            (&[b""], Http::One),
        ] {
            assert_eq!(sniffed(parts).await, (http, parts.concat()), "{parts:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let (client, server) = duplex(10);
        let mut wire = Wire::new(server);
        let start = Instant::now();
        let error = wire.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= STALL && start.elapsed() < STALL * 2);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_little_by_little_is_waited_for() {
        let (mut client, server) = duplex(10);
        let mut wire = Wire::new(server);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            let mut some = [0; 10];
            while all.len() < 100 {
                sleep(STALL / 2).await;
                let read = client.read(&mut some).await.unwrap();
                all.extend_from_slice(&some[..read]);
            }
        });
        wire.write_all(&[0; 100]).await.unwrap();
        reader.await.unwrap();
    }
}
