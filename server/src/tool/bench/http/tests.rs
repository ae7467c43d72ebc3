use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};

use super::*;

#[test]
fn an_answers_end_is_told_by_its_head() {
    let framing = |head: &str| parse(head.as_bytes()).unwrap().unwrap();
    let head = framing("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello");
    assert_eq!((head.framing, head.closes), (Framing::Length(12), false));
    let head =
        framing("HTTP/1.1 503 Busy\r\ntransfer-encoding: Chunked\r\nconnection: close\r\n\r\n");
    assert_eq!(
        (head.status, head.framing, head.closes),
        (503, Framing::Chunked, true)
    );
    let head = framing("HTTP/1.0 200 OK\r\n\r\n");
    assert_eq!((head.framing, head.closes), (Framing::ToTheEnd, true));
    let head = framing("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n");
    assert!(!head.closes);
    assert_eq!(
        framing("HTTP/1.1 204 No Content\r\n\r\n").framing,
        Framing::Length(0)
    );
    assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-"), Ok(None));
    assert_eq!(parse(b"SSH-2.0-OpenSSH\r\n"), Err(Broken::Malformed));
    assert_eq!(
        parse(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"),
        Err(Broken::Malformed)
    );
}

/// Answers each connection with the given pieces, a moment apart, then closes or waits.
async fn server(pieces: &'static [&'static str], stays: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 1024];
                while stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                    for piece in pieces {
                        stream.write_all(piece.as_bytes()).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    if !stays {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn every_way_to_end_a_body_is_read_to_its_end_and_no_further() {
    let table: [(&[&str], &str, bool); 5] = [
        (
            &["HTTP/1.1 200 OK\r\ncontent-le", "ngth: 5\r\n\r\nhe", "llo"],
            "hello",
            true,
        ),
        (
            &[
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r",
                "\nhel\r\n2;x=y\r\nlo\r\n0\r\nsum: 1",
                "\r\n\r\n",
            ],
            "hello",
            true,
        ),
        (&["HTTP/1.1 200 OK\r\n\r\nhel", "lo"], "hello", false),
        (
            &["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"],
            "ok",
            true,
        ),
        (
            &["HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"],
            "ok",
            false,
        ),
    ];
    for (pieces, body, stays) in table {
        let pieces: &'static [&'static str] = pieces.to_vec().leak();
        let mut connection = Connection::new(server(pieces, stays).await);
        for _ in 0..3 {
            let answer = connection
                .exchange(b"GET / HTTP/1.1\r\n\r\n", |_| 100)
                .await;
            let answer = answer.unwrap();
            assert_eq!(
                (
                    answer.status,
                    String::from_utf8(answer.body).unwrap().as_str()
                ),
                (200, body),
                "{pieces:?}"
            );
            let sent: usize = pieces.iter().map(|piece| piece.len()).sum();
            assert_eq!(answer.bytes, sent as u64);
        }
        assert_eq!(connection.opened, if stays { 1 } else { 3 }, "{pieces:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    for (pieces, broken) in [
        (
            &["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe"][..],
            Broken::Closed,
        ),
        (
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"],
            Broken::Malformed,
        ),
        (&["HTTP/1.1 200"], Broken::Closed),
        (&["hello\r\n\r\n"], Broken::Malformed),
    ] {
        let pieces: &'static [&'static str] = pieces.to_vec().leak();
        let mut connection = Connection::new(server(pieces, false).await);
        let answer = connection.exchange(b"GET / HTTP/1.1\r\n\r\n", |_| 9).await;
        assert_eq!(answer.unwrap_err(), broken, "{pieces:?}");
    }
    // Nobody listens on it, and nobody else gets it.
    let kept = TcpSocket::new_v4().unwrap();
    kept.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let answer = Connection::new(kept.local_addr().unwrap())
        .exchange(b"GET / HTTP/1.1\r\n\r\n", |_| 9)
        .await;
    assert_eq!(answer.unwrap_err(), Broken::Refused);
}

#[tokio::test]
async fn only_the_beginning_of_a_body_is_kept() {
    let address = server(
        &["HTTP/1.1 400 Bad\r\ncontent-length: 10\r\n\r\n0123456789"],
        true,
    )
    .await;
    let answer = Connection::new(address)
        .exchange(b"x", |_| 4)
        .await
        .unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (400, &b"0123"[..]));
}
