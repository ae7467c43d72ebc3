//! `grpc.health.v1`: of the server, of the inference service, and of each model by its name.
//!
//! It follows readiness, and like readiness it stays SERVING while the server drains.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health as Protocol, HealthServer},
};

use crate::{app::App, catalog::FindError};

/// How soon a watcher hears of a change.
const TICK: Duration = Duration::from_millis(250);
const SERVICE: &str = "inference.GRPCInferenceService";

/// The service.
pub(super) fn server(app: Arc<App>) -> HealthServer<Health> {
    HealthServer::new(Health { app })
}

#[derive(Clone)]
pub(super) struct Health {
    app: Arc<App>,
}

impl Health {
    fn of(&self, service: &str) -> ServingStatus {
        let is_serving = match service {
            "" | SERVICE => self.app.catalog.is_open(),
            model => match self.app.catalog.find(model, None) {
                Ok(_) => true,
                Err(FindError::NotReady { .. } | FindError::Failed { .. }) => false,
                Err(FindError::UnknownModel { .. } | FindError::UnknownVersion { .. }) => {
                    return ServingStatus::ServiceUnknown;
                }
            },
        };
        if is_serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    let status = status.into();
    HealthCheckResponse { status }
}

#[tonic::async_trait]
impl Protocol for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.of(&service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
                "there is no service {service:?}: name a model, {SERVICE}, or nothing for the whole server"
            ))),
            status => Ok(Response::new(response(status))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// The status now, then each change of it.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let start = (self.clone(), service, None);
        let changes = stream::unfold(start, |(health, service, last)| async move {
            loop {
                let now = health.of(&service);
                if last != Some(now) {
                    return Some((Ok(response(now)), (health, service, Some(now))));
                }
                tokio::time::sleep(TICK).await;
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
