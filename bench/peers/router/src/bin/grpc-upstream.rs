//! Answers every call of gRPC with a message of 200 bytes and status 0, once the request has ended. `grpc-upstream LISTEN`

use std::{convert::Infallible, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming, header::HeaderValue, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

const MESSAGE: [u8; 205] = {
    let mut message = [b'x'; 205];
    (message[0], message[1], message[2], message[3], message[4]) = (0, 0, 0, 0, 200);
    message
};

async fn answer(request: Request<Incoming>) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let trailers = async { Some(Ok(HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]))) };
    let mut response = Response::new(Full::new(Bytes::from_static(&MESSAGE)).with_trailers(trailers));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

fn main() -> io::Result<()> {
    let listen = std::env::args().nth(1).expect("usage: grpc-upstream LISTEN");
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let mut server = http2::Builder::new(TokioExecutor::new());
            server.max_concurrent_streams(1024);
            let connection = server.serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(connection);
        }
    })
}
