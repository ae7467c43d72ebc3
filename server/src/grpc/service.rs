//! The calls of `GRPCInferenceService`.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    Arrived, answer,
    proto::{
        self, grpc_inference_service_server::GrpcInferenceService,
        repository_index_response::ModelIndex,
    },
    request, status,
};
use crate::{
    app::App,
    deadline, describe, infer,
    metrics::{Protocol, Rejection},
    model::Model,
    observe::trail::apart,
    oip, repository,
};

/// Of one stream's requests so many run at once; the next is read when the first of them is answered.
const STREAM_WINDOW: usize = 32;

/// Answers the calls. Cheap to clone.
#[derive(Clone)]
pub(super) struct Service {
    app: Arc<App>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    fn find(&self, name: &str, version: &str) -> Result<Arc<Model>, Status> {
        let version = Some(version).filter(|version| !version.is_empty());
        let found = self.app.catalog.find(name, version);
        found.map_err(|error| status::not_found(&error))
    }

    /// Finds the model, runs the request, counts what came of it.
    async fn infer(
        &self,
        message: proto::ModelInferRequest,
        timeout: Option<Duration>,
        since: Instant,
    ) -> Result<proto::ModelInferResponse, Status> {
        let model = match self.find(&message.model_name, &message.model_version) {
            Ok(model) => model,
            Err(status) => {
                let unknown = &self.app.metrics.unknown;
                unknown.answered(Protocol::Grpc, status.code() as u16, since.elapsed());
                return Err(status);
            }
        };
        let guard = model.meter.begin();
        let answered = match self.app.admission.enter() {
            Ok(_admitted) => self.run(&model, message, timeout, since).await,
            Err(crowded) => {
                model.meter.rejected(Rejection::Concurrency);
                Err(status::crowded(crowded))
            }
        };
        drop(guard);
        let code = answered.as_ref().map_or_else(Status::code, |_| Code::Ok);
        model
            .meter
            .answered(Protocol::Grpc, code as u16, since.elapsed());
        answered
    }

    async fn run(
        &self,
        model: &Model,
        mut message: proto::ModelInferRequest,
        timeout: Option<Duration>,
        since: Instant,
    ) -> Result<proto::ModelInferResponse, Status> {
        let start = Instant::now();
        let asked = request::read(&mut message, &model.signature).map_err(status::bad)?;
        model.meter.preprocessed(start.elapsed());
        let deadline = deadline::earliest(since, [timeout, asked.parameters.timeout]);
        let inference = oip::inference(asked.inputs, &asked.wanted, &asked.parameters, deadline);
        let ran = infer::run(&self.app, model, inference).await;
        let outcome = ran.map_err(|error| status::not_run(&error))?;
        let start = Instant::now();
        let response = answer::write(model, message.id, &asked.wanted, &outcome)?;
        model.meter.postprocessed(start.elapsed());
        Ok(response)
    }
}

fn arrived<T>(request: &Request<T>) -> Instant {
    let arrived = request.extensions().get::<Arrived>();
    arrived.map_or_else(Instant::now, |arrived| arrived.0)
}

fn timeout<T>(request: &Request<T>) -> Result<Option<Duration>, Status> {
    deadline::of_grpc(request.metadata().as_ref()).map_err(status::bad)
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(
        &self,
        _: Request<proto::ServerLiveRequest>,
    ) -> Answer<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> Answer<proto::ServerReadyResponse> {
        let ready = self.app.catalog.is_open();
        Ok(Response::new(proto::ServerReadyResponse { ready }))
    }

    /// A model that is loading, and one that there is not, are not ready; neither is an error.
    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Answer<proto::ModelReadyResponse> {
        let proto::ModelReadyRequest { name, version } = request.into_inner();
        let ready = match self.find(&name, &version) {
            Ok(_) => true,
            Err(status) if status.code() == Code::Unavailable => false,
            Err(status) => return Err(status),
        };
        Ok(Response::new(proto::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<proto::ServerMetadataRequest>,
    ) -> Answer<proto::ServerMetadataResponse> {
        Ok(Response::new(proto::ServerMetadataResponse {
            name: oip::SERVER.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: oip::EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Answer<proto::ModelMetadataResponse> {
        let proto::ModelMetadataRequest { name, version } = request.into_inner();
        let model = self.find(&name, &version)?;
        Ok(Response::new(describe::metadata(&self.app, &model)))
    }

    async fn model_infer(
        &self,
        request: Request<proto::ModelInferRequest>,
    ) -> Answer<proto::ModelInferResponse> {
        let (since, timeout) = (arrived(&request), timeout(&request)?);
        let answered = self.infer(request.into_inner(), timeout, since).await;
        answered.map(Response::new)
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<proto::ModelStreamInferResponse, Status>> + Send>>;

    /// The call's deadline bounds the stream; a request of it has the deadline of its own parameter.
    async fn model_stream_infer(
        &self,
        request: Request<Streaming<proto::ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let (since, timeout) = (arrived(&request), timeout(&request)?);
        let service = self.clone();
        let answers = until_broken(request.into_inner())
            .map(move |message| {
                let service = service.clone();
                async move {
                    let (message, now) = (message?, Instant::now());
                    let left = timeout.map(|timeout| timeout.saturating_sub(now - since));
                    let id = message.id.clone();
                    let answered = apart(service.infer(message, left, now)).await;
                    Ok(stream_response(id, answered))
                }
            })
            .buffered(STREAM_WINDOW);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn model_config(
        &self,
        request: Request<proto::ModelConfigRequest>,
    ) -> Answer<proto::ModelConfigResponse> {
        let proto::ModelConfigRequest { name, version } = request.into_inner();
        let model = self.find(&name, &version)?;
        Ok(Response::new(proto::ModelConfigResponse {
            config: Some(describe::config(&model)),
        }))
    }

    async fn model_statistics(
        &self,
        request: Request<proto::ModelStatisticsRequest>,
    ) -> Answer<proto::ModelStatisticsResponse> {
        let proto::ModelStatisticsRequest { name, version } = request.into_inner();
        let models = if name.is_empty() {
            self.app.catalog.models()
        } else {
            vec![self.find(&name, &version)?]
        };
        Ok(Response::new(proto::ModelStatisticsResponse {
            model_stats: models
                .iter()
                .map(|model| describe::statistics(model))
                .collect(),
        }))
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> Answer<proto::RepositoryIndexResponse> {
        let only_ready = request.into_inner().ready;
        let entries = repository::index(&self.app, only_ready).await;
        let entries = entries.map_err(|failure| status::not_managed(&failure))?;
        let models = entries.into_iter().map(|entry| ModelIndex {
            name: entry.name,
            version: entry.version,
            state: entry.state.to_owned(),
            reason: entry.reason,
        });
        Ok(Response::new(proto::RepositoryIndexResponse {
            models: models.collect(),
        }))
    }

    async fn repository_model_load(
        &self,
        request: Request<proto::RepositoryModelLoadRequest>,
    ) -> Answer<proto::RepositoryModelLoadResponse> {
        let request = request.into_inner();
        let parameters = request.parameters.keys().map(String::as_str);
        let changed = repository::load(&self.app, &request.model_name, parameters).await;
        changed.map_err(|error| status::not_changed(&error))?;
        Ok(Response::new(proto::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<proto::RepositoryModelUnloadRequest>,
    ) -> Answer<proto::RepositoryModelUnloadResponse> {
        let changed = repository::unload(&self.app, &request.into_inner().model_name).await;
        changed.map_err(|error| status::not_changed(&error))?;
        Ok(Response::new(proto::RepositoryModelUnloadResponse {}))
    }
}

/// The messages up to the first that is none, and the error: tonic's own stream gives that error again and again to
/// whoever goes on asking.
fn until_broken<T>(messages: Streaming<T>) -> impl Stream<Item = Result<T, Status>> {
    stream::try_unfold(messages, |mut messages| async {
        let message = messages.message().await?;
        Ok(message.map(|message| (message, messages)))
    })
}

/// An error is an answer: the stream goes on. Its id tells which request it is of.
fn stream_response(
    id: String,
    answered: Result<proto::ModelInferResponse, Status>,
) -> proto::ModelStreamInferResponse {
    match answered {
        Ok(response) => proto::ModelStreamInferResponse {
            error_message: String::new(),
            infer_response: Some(response),
        },
        Err(status) => proto::ModelStreamInferResponse {
            error_message: status.message().to_owned(),
            infer_response: Some(proto::ModelInferResponse {
                id,
                ..proto::ModelInferResponse::default()
            }),
        },
    }
}
