//! One router's stream: connects, reads lines, hands frames on, until something breaks.
//!
//! Invariants: a line has a bound, a silence has one, and nothing is read ahead of them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bytes::{Buf, BytesMut};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use ortolan_stats::{Frame, PATH};
use tokio::{net::TcpStream, task::JoinSet, time};

use super::heard::LATELY;

/// A thousand services with traffic take some megabytes in the first frame.
const LONGEST: usize = 32 << 20;
/// Of what a router says when it refuses.
const REFUSAL: usize = 1 << 10;

/// Where a stream is, and what opens it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The router's stream.
    pub address: SocketAddr,
    /// The token is in this file.
    pub token: Option<PathBuf>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file with the token.
    #[error("the token in {} cannot be used: {why}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// No HTTP, or it broke.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// It does not want us.
    #[error("it answers {0}: {1}")]
    Refused(StatusCode, String),
    /// Nothing came.
    #[error("nothing came for {} s", LATELY.as_secs())]
    Silent,
    /// A line that no router would write.
    #[error("a line is longer than {LONGEST} bytes")]
    Long,
    /// No frame.
    #[error("a line is no frame: {0}")]
    Frame(#[from] serde_json::Error),
    /// It ended.
    #[error("it ended")]
    Ended,
}

/// A header with the token, read anew each time: it may have changed.
async fn bearer(path: &Path) -> Result<header::HeaderValue, Fault> {
    let wrong = |why: String| Fault::Token {
        path: path.to_owned(),
        why,
    };
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| wrong(error.to_string()))?;
    if text.trim().is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    let mut value = header::HeaderValue::try_from(format!("Bearer {}", text.trim()))
        .map_err(|_| wrong("it has bytes that no header has".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Hands each frame on, with whether it is the first, until the stream ends.
pub async fn read(source: &Source, mut take: impl FnMut(Frame, bool)) -> Fault {
    // Whoever drops this ends the connection.
    let mut driver = JoinSet::new();
    let opened = time::timeout(LATELY, open(source, &mut driver)).await;
    let mut body = match opened.unwrap_or(Err(Fault::Silent)) {
        Ok(body) => body,
        Err(fault) => return fault,
    };
    let mut lines = Lines::default();
    let mut is_first = true;
    loop {
        match time::timeout(LATELY, lines.next(&mut body)).await {
            Ok(Ok(frame)) => take(frame, is_first),
            Ok(Err(fault)) => return fault,
            Err(_) => return Fault::Silent,
        }
        is_first = false;
    }
}

async fn open(source: &Source, driver: &mut JoinSet<()>) -> Result<Incoming, Fault> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static(PATH);
    if let Some(path) = &source.token {
        let bearer = bearer(path).await?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
    }
    if let Ok(host) = header::HeaderValue::try_from(source.address.to_string()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let stream = TcpStream::connect(source.address)
        .await
        .map_err(Fault::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    driver.spawn(async move {
        // What breaks here breaks the body, too.
        let _ = connection.await;
    });
    let answer = sender.send_request(request).await?;
    let (status, body) = (answer.status(), answer.into_body());
    if status == StatusCode::OK {
        return Ok(body);
    }
    let said = Limited::new(body, REFUSAL).collect().await;
    let said = said.map(|said| String::from_utf8_lossy(&said.to_bytes()).into_owned());
    Err(Fault::Refused(status, said.unwrap_or_default()))
}

/// What was read and is no whole line yet.
#[derive(Default)]
struct Lines {
    read: BytesMut,
    /// So much of it has no end of a line.
    looked: usize,
}

impl Lines {
    /// The next line's frame.
    async fn next(&mut self, body: &mut Incoming) -> Result<Frame, Fault> {
        loop {
            if let Some(line) = self.line()? {
                return Ok(serde_json::from_slice(&line)?);
            }
            let Some(frame) = body.frame().await else {
                return Err(Fault::Ended);
            };
            if let Ok(data) = frame?.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }

    fn line(&mut self) -> Result<Option<BytesMut>, Fault> {
        let new = &self.read[self.looked..];
        let Some(end) = new.iter().position(|byte| *byte == b'\n') else {
            self.looked = self.read.len();
            return if self.looked > LONGEST {
                Err(Fault::Long)
            } else {
                Ok(None)
            };
        };
        let line = self.read.split_to(self.looked + end);
        self.read.advance(1);
        self.looked = 0;
        if line.len() > LONGEST {
            return Err(Fault::Long);
        }
        if self.read.is_empty() {
            // The first line is long, the others are not: its memory is not kept.
            self.read = BytesMut::new();
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_out_of_whatever_pieces_they_come_in() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in ["", "ab", "c", "\n\nd\ne", "f\ng"] {
            lines.read.extend_from_slice(piece.as_bytes());
            while let Some(line) = lines.line().expect("short lines") {
                found.push(String::from_utf8(line.to_vec()).expect("UTF-8"));
            }
        }
        assert_eq!(found, ["abc", "", "d", "ef"]);
        assert_eq!(&lines.read[..], b"g");
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut lines = Lines::default();
        lines.read.resize(LONGEST, b'x');
        assert!(matches!(lines.line(), Ok(None)));
        lines.read.extend_from_slice(b"x");
        assert!(matches!(lines.line(), Err(Fault::Long)));
    }
}
