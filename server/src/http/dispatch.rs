//! One request on a connection: to the REST paths or to the gRPC calls, told apart before any routing.
//!
//! Output: an answer, always; a panic is a 500, or INTERNAL. Every answer carries the request's id.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    BoxError, Router,
    body::{Body, Bytes, HttpBody},
    response::IntoResponse,
};
use futures::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use ortolan_linger::Lingering;
use percent_encoding::percent_decode_str;
use tonic::Status;
use tower::ServiceExt;

use super::{
    body::STALL,
    coding::{self, Coding},
    error::ApiError,
    patience::Patient,
    request_id, v2,
};
use crate::{
    app::App,
    grpc::{Arrived, Grpc, is_grpc},
    logging,
    observe::{
        Begun,
        context::TraceId,
        counted::{Counted, grpc_code},
        timing,
    },
};

/// What a port answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// REST, and gRPC by its content type.
    Both,
    /// gRPC.
    Grpc,
}

/// Answers the requests of all connections of a port.
pub struct Dispatch {
    router: Router,
    grpc: Grpc,
    app: Arc<App>,
    speaks: Speaks,
}

impl Dispatch {
    /// For one port.
    #[must_use]
    pub fn new(router: Router, grpc: Grpc, app: Arc<App>, speaks: Speaks) -> Self {
        Self {
            router,
            grpc,
            app,
            speaks,
        }
    }

    /// What all ports share.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let request = Lingering::of(request);
        let id = request_id::of(request.headers());
        let Begun { trace_id, trail } = self.app.observer.begin(&request, &id);
        let Some(trail) = trail else {
            return Ok(self.answer_as(id, trace_id, request).await);
        };
        let request = request.map(|body| Counted::request(body, Arc::clone(&trail)));
        let work = self.answer_as(id, trace_id, request);
        let response = Arc::clone(&trail).follow(work).await;
        let code = grpc_code(response.headers());
        trail.coded(code.unwrap_or(response.status().as_u16()));
        Ok(response.map(|body| Body::new(Counted::answer(body, trail))))
    }

    async fn answer_as<B>(
        &self,
        id: HeaderValue,
        trace_id: Option<TraceId>,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let arrived = Instant::now();
        let (version, is_grpc) = (request.version(), is_grpc(request.headers()));
        let coding = Coding::of_answer(request.headers());
        let asks_run = request.headers().contains_key(&timing::ASKS);
        let work = async {
            if is_grpc {
                return self.call(arrived, request).await;
            }
            let response = self.rest(arrived, request).await;
            match coding {
                Some(coding) => coding::packed(response, coding).await,
                None => response,
            }
        };
        let work = AssertUnwindSafe(work).catch_unwind();
        let work = logging::within(id.clone(), trace_id, work);
        let (answered, ran) = match asks_run {
            true => timing::timed(work).await,
            false => (work.await, None),
        };
        let mut response = answered.unwrap_or_else(|_| panicked(&id, is_grpc));
        let headers = response.headers_mut();
        headers.insert(request_id::HEADER, id);
        if let Some(ran) = ran {
            let micros = u64::try_from(ran.as_micros()).unwrap_or(u64::MAX);
            headers.insert(timing::RAN, micros.into());
        }
        // HTTP/2 has no such header: its connections are told to end by GOAWAY.
        if version < Version::HTTP_2 && self.app.is_draining() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn rest<B>(&self, arrived: Instant, mut request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if self.speaks == Speaks::Grpc {
            return ApiError::unsupported(
                "this port answers gRPC; REST has the port of --http, which answers gRPC as well",
            )
            .into_response();
        }
        let path = request.uri().path();
        if path.contains('%') && percent_decode_str(path).decode_utf8().is_err() {
            let message = "the path is not UTF-8 once its %XX are read";
            return ApiError::bad(message).into_response();
        }
        if let Some(model) = v2::model_asked(&request).map(str::to_owned) {
            return v2::infer_by(&self.app, &model, arrived, request.map(Body::new)).await;
        }
        request.extensions_mut().insert(Arrived(arrived));
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    async fn call<B>(&self, arrived: Instant, mut request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError> + Send,
    {
        if request.version() < Version::HTTP_2 {
            let message = "gRPC needs HTTP/2, and this request came over HTTP/1";
            return ApiError::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, message).into_response();
        }
        request.extensions_mut().insert(Arrived(arrived));
        // A stream of requests may pause as long as its client likes.
        let answered = if request.uri().path().ends_with("/ModelStreamInfer") {
            self.grpc.answer(request).await
        } else {
            let patient = request.map(|body| Patient::new(body, STALL));
            self.grpc.answer(patient).await
        };
        answered.map(Body::new)
    }
}

fn panicked(id: &HeaderValue, is_grpc: bool) -> Response<Body> {
    const SENTENCE: &str = "the request panicked; this is a bug in the server";
    tracing::error!(id = id.to_str().unwrap_or_default(), "{SENTENCE}");
    if is_grpc {
        return Status::internal(SENTENCE)
            .into_http::<tonic::body::Body>()
            .map(Body::new);
    }
    ApiError::internal(SENTENCE).into_response()
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    async fn panics() -> &'static str {
        panic!("as a bug would")
    }

    fn dispatch(app: &Arc<App>) -> Dispatch {
        let router = Router::new()
            .route("/panics", get(panics))
            .route("/ok", get(|| async { "ok" }));
        Dispatch::new(
            router,
            Grpc::new(app).unwrap(),
            Arc::clone(app),
            Speaks::Both,
        )
    }

    async fn ask(dispatch: &Dispatch, path: &str) -> Response<Body> {
        let request = Request::get(path).body(Body::empty()).unwrap();
        dispatch.answer(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_a_500_and_the_next_request_is_answered() {
        let dispatch = dispatch(&Arc::new(App::new(1)));
        let response = ask(&dispatch, "/panics").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key(request_id::HEADER));
        assert_eq!(ask(&dispatch, "/ok").await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn answers_close_their_connection_only_while_the_app_drains() {
        let app = Arc::new(App::new(1));
        let dispatch = dispatch(&app);
        let before = ask(&dispatch, "/ok").await;
        assert!(!before.headers().contains_key(header::CONNECTION));
        app.drain();
        assert_eq!(
            ask(&dispatch, "/ok").await.headers()[header::CONNECTION],
            "close"
        );
    }

    #[tokio::test]
    async fn grpc_is_told_apart_before_the_paths_are_looked_at() {
        let dispatch = dispatch(&Arc::new(App::new(1)));
        let call = |version| {
            Request::post("/ok")
                .version(version)
                .header("content-type", "application/grpc")
                .body(Body::empty())
                .unwrap()
        };
        let response = dispatch.answer(call(Version::HTTP_2)).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "12", "UNIMPLEMENTED");
        let response = dispatch.answer(call(Version::HTTP_11)).await.unwrap();
        assert_eq!(response.status(), StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        let response = ask(&dispatch, "/nowhere").await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(!response.headers().contains_key("grpc-status"));
    }
}
