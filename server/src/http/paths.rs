//! The router, and beside it a list of what it answers: the OpenAPI document is held against that list.

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    routing::{MethodRouter, get, post},
};

use crate::app::App;

/// Paths with their handlers.
#[derive(Default)]
pub(super) struct Paths {
    router: Router<Arc<App>>,
    listed: Vec<(&'static str, String)>,
}

impl Paths {
    /// Answers GET, and HEAD as GET without its body.
    pub(super) fn get<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<App>>) -> Self {
        self.route("get", path, path, get(handler))
    }

    /// Answers POST.
    pub(super) fn post<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<App>>) -> Self {
        self.route("post", path, path, post(handler))
    }

    /// Answers POST to paths that the router cannot tell apart further, and that `listed` names as they are.
    pub(super) fn post_as<T: 'static>(
        self,
        path: &str,
        listed: &str,
        handler: impl Handler<T, Arc<App>>,
    ) -> Self {
        self.route("post", path, listed, post(handler))
    }

    fn route(
        mut self,
        method: &'static str,
        path: &str,
        listed: &str,
        handler: MethodRouter<Arc<App>>,
    ) -> Self {
        self.router = self.router.route(path, handler);
        self.listed.push((method, listed.to_owned()));
        self
    }

    /// Methods, in small letters, and paths.
    #[cfg(test)]
    pub(super) fn listed(&self) -> &[(&'static str, String)] {
        &self.listed
    }

    /// The router.
    pub(super) fn into_router(self) -> Router<Arc<App>> {
        self.router
    }
}
