//! A store of models for the examples and the tests: a folder over HTTP, so that a URI works in a cluster that cannot reach the internet.
//!
//! Input: a folder, fixed at start. Output: an [`axum::Router`].
//!
//! | path | answer |
//! |---|---|
//! | `/{file}` | the file; `HEAD`, `Range`, `If-Modified-Since` |
//! | `/healthz` | `200` |
//! | `/private/{file}` | the file for `Authorization: Bearer ortolan` or the user `ortolan` with the password `ortolan`, else `401` |
//! | `/redirect/{file}` | `302` to `/{file}` |
//! | `/faults/status/{code}/{file}` | that status |
//! | `/faults/html/{file}` | `200` with an HTML page, as a login wall answers |
//! | `/faults/truncated/{file}` | `200` with the first half, as if it were all |
//! | `/faults/interrupted/{file}` | the connection breaks after half of what was asked; a `Range` request for the rest gets it whole |
//!
//! Invariant: no request changes anything, and no answer leaves the folder (links out of it aside, which the images do not hold).

use std::{io, path::PathBuf, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use futures::StreamExt;
use tower_http::services::ServeDir;

/// What a store behind a login answers to a client without one.
const HTML: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n";

/// `Bearer ortolan`, and `ortolan:ortolan` in the Basic scheme.
const ACCEPTED: [&str; 2] = ["Bearer ortolan", "Basic b3J0b2xhbjpvcnRvbGFu"];

/// Time for the bytes before a break to leave: two orders more than loopback needs.
const FLUSH: Duration = Duration::from_millis(100);

/// The routes over `folder`.
pub fn router(folder: PathBuf) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/private/{*file}", get(private))
        .route("/redirect/{*file}", get(redirect))
        .route("/faults/status/{code}/{*file}", get(status))
        .route("/faults/html/{*file}", get(html))
        .route("/faults/truncated/{*file}", get(truncated))
        .route("/faults/interrupted/{*file}", get(interrupted))
        .fallback_service(ServeDir::new(&folder))
        .with_state(folder)
}

async fn private(
    State(folder): State<PathBuf>,
    Path(file): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if !given.is_some_and(|value| ACCEPTED.contains(&value)) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"models\", Bearer")];
        return (
            StatusCode::UNAUTHORIZED,
            challenge,
            "this file needs credentials\n",
        )
            .into_response();
    }
    serve(folder, &file, request).await
}

async fn redirect(Path(file): Path<String>) -> Response {
    (
        StatusCode::FOUND,
        Redirect::temporary(&format!("/{file}"))
            .into_response()
            .headers()
            .clone(),
    )
        .into_response()
}

async fn status(Path((code, _file)): Path<(u16, String)>) -> Response {
    match StatusCode::from_u16(code) {
        Ok(code) => (code, format!("{code}\n")).into_response(),
        Err(_) => (StatusCode::BAD_REQUEST, "write a status from 100 to 999\n").into_response(),
    }
}

async fn html() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], HTML).into_response()
}

async fn truncated(
    State(folder): State<PathBuf>,
    Path(file): Path<String>,
    mut request: Request,
) -> Response {
    request.headers_mut().remove(header::RANGE);
    let response = serve(folder, &file, request).await;
    let Some(whole) = length(&response) else {
        return response;
    };
    (
        StatusCode::OK,
        [(header::CONTENT_LENGTH, (whole / 2).to_string())],
        cut(response.into_body(), whole / 2, false),
    )
        .into_response()
}

async fn interrupted(
    State(folder): State<PathBuf>,
    Path(file): Path<String>,
    request: Request,
) -> Response {
    let resumed = request.headers().contains_key(header::RANGE);
    let response = serve(folder, &file, request).await;
    if resumed {
        return response;
    }
    let Some(whole) = length(&response) else {
        return response;
    };
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, cut(body, whole / 2, true))
}

/// The file below the folder, as [`ServeDir`] answers for it.
async fn serve(folder: PathBuf, file: &str, mut request: Request) -> Response {
    let Ok(uri) = format!("/{file}").parse() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    match ServeDir::new(folder).try_call(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The body's length in bytes, of a successful answer only.
fn length(response: &Response) -> Option<u64> {
    response.status().is_success().then_some(())?;
    response
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The first `keep` bytes of `body`; then its end, or (`broken`) an error, which closes the connection.
fn cut(body: Body, keep: u64, broken: bool) -> Body {
    let mut left = usize::try_from(keep).unwrap_or(usize::MAX);
    let head = body
        .into_data_stream()
        .map(|chunk| chunk.map_err(io::Error::other))
        .filter_map(move |chunk| {
            let kept = match chunk {
                Ok(mut bytes) => {
                    bytes.truncate(left);
                    left -= bytes.len();
                    (!bytes.is_empty()).then_some(Ok(bytes))
                }
                Err(error) => Some(Err(error)),
            };
            async move { kept }
        });
    // What is written goes out first: an error at once would take it back.
    let end = futures::stream::iter(broken.then_some(())).then(|()| async {
        tokio::time::sleep(FLUSH).await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    Body::from_stream(head.chain(end))
}
