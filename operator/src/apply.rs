//! Carries a plan's writes out, in the plan's order, each through the gate.

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::Pod,
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use ortolan_core::{
    observed::{Foreign, controlled_by},
    plan::{Kind, Object, Write},
};
use ortolan_crds::{InferenceService, InferenceServiceStatus, names};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    context::Context,
    index::{Index, Kept, Key},
};

/// Why a write was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else's object has the name.
    #[error("a {} named {} exists that is not this InferenceService's", .0.kind, .0.name)]
    Foreign(Foreign),
    /// The API server refuses the object as it is.
    #[error("the API server refuses {kind} {name}: {message}")]
    Refused {
        /// The object's kind.
        kind: &'static str,
        /// The object's name.
        name: String,
        /// The API server's words.
        message: String,
    },
    /// We no longer lead.
    #[error("this replica no longer leads")]
    NotLeading,
    /// What was decided was decided for an older version of the InferenceService.
    #[error("InferenceService {0} has changed since it was read: decided again")]
    Outdated(String),
    /// Anything else: the network, a conflict, a quota.
    #[error("{verb} {kind} {name}: {source}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// The object's kind.
        kind: &'static str,
        /// The object's name.
        name: String,
        /// What the client says.
        source: kube::Error,
    },
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Not before the spec changes.
    Terminal,
    /// It may pass.
    Transient,
    /// Somebody else has to move first.
    Conflict,
}

impl Error {
    /// For the condition, the event, the metric and the log.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Foreign(_) => "NameCollision",
            Self::Refused { .. } => "InvalidSpec",
            Self::NotLeading => "NotLeading",
            Self::Outdated(_) | Self::Api { .. } => "WriteFailed",
        }
    }

    /// Whether trying again can help.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Foreign(_) => Class::Conflict,
            Self::Refused { .. } => Class::Terminal,
            Self::NotLeading | Self::Outdated(_) | Self::Api { .. } => Class::Transient,
        }
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// A resourceVersion that no object has: applied with it, an object is created, and one that exists
/// is met with a conflict, whatever its fields. Without it, an object of somebody else's that shares no
/// field with ours (an empty PodDisruptionBudget) would be taken over without a conflict.
pub(crate) const NO_VERSION: &str = "1";

/// What is written and kept in an index.
trait Applied:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + k8s_openapi::Resource
    + Clone
    + Kept
    + std::fmt::Debug
{
}

impl<K> Applied for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + k8s_openapi::Resource
        + Clone
        + Kept
        + std::fmt::Debug
{
}

/// One service's writes.
pub struct Writer<'a> {
    context: &'a Context,
    key: &'a Key,
    uid: &'a str,
}

impl<'a> Writer<'a> {
    /// A writer for the InferenceService with this key and UID.
    #[must_use]
    pub const fn new(context: &'a Context, key: &'a Key, uid: &'a str) -> Self {
        Self { context, key, uid }
    }

    /// Whose writes.
    #[must_use]
    pub const fn key(&self) -> &Key {
        self.key
    }

    /// Makes the writes, in order; stops at the first that fails.
    ///
    /// # Errors
    /// That of the write that failed.
    pub async fn apply(&self, writes: Vec<Write>) -> Result<(), Error> {
        let i = &self.context.indices;
        for write in writes {
            match write {
                Write::CreateRevision(object) => self.create(&object).await?,
                Write::Apply { object, ours } => match object {
                    Object::ConfigMap(o) => self.patch(&i.config_maps, o.as_ref(), ours).await?,
                    Object::Deployment(o) => self.patch(&i.deployments, o.as_ref(), ours).await?,
                    Object::DisruptionBudget(o) => self.patch(&i.budgets, o.as_ref(), ours).await?,
                    Object::Service(o) => self.patch(&i.services, o.as_ref(), ours).await?,
                    Object::HttpRoute(o) => self.route(&i.http_routes, o.as_ref(), ours).await?,
                    Object::GrpcRoute(o) => self.route(&i.grpc_routes, o.as_ref(), ours).await?,
                },
                Write::Scale {
                    deployment,
                    replicas,
                } => {
                    self.scale(deployment.as_str(), replicas).await?;
                }
                Write::MarkStable { revision, at } => {
                    self.mark(revision.as_str(), &at.to_string()).await?;
                }
                Write::Delete { kind, name, uid } => match kind {
                    Kind::ConfigMap => self.delete(&i.config_maps, &name, &uid).await?,
                    Kind::ControllerRevision => self.delete(&i.revisions, &name, &uid).await?,
                    Kind::Deployment => self.delete(&i.deployments, &name, &uid).await?,
                    Kind::DisruptionBudget => self.delete(&i.budgets, &name, &uid).await?,
                    Kind::Pod => self.delete_pod(&name, &uid).await?,
                    Kind::Service => self.delete(&i.services, &name, &uid).await?,
                    Kind::HttpRoute => self.delete(&i.http_routes, &name, &uid).await?,
                    Kind::GrpcRoute => self.delete(&i.grpc_routes, &name, &uid).await?,
                },
            }
        }
        Ok(())
    }

    /// Writes the status that was decided for the InferenceService as it was read in this `version`. Where it has changed
    /// since, it is not written: a replica that sees an older status, because its watch is behind, would move a rollout
    /// back, and one that is under way while somebody wipes the status would bring it back.
    ///
    /// # Errors
    /// When the write fails; [`Error::Outdated`] when the InferenceService has changed.
    pub async fn status(
        &self,
        status: &InferenceServiceStatus,
        version: Option<&str>,
    ) -> Result<(), Error> {
        let name = &self.key.name;
        let api: Api<InferenceService> = self.api();
        let mut patch = json!({
            "apiVersion": InferenceService::api_version(&()),
            "kind": InferenceService::kind(&()),
            "metadata": {"name": name},
            "status": status,
        });
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = json!(version);
        }
        let params = PatchParams::apply(names::MANAGER_STATUS).force();
        self.enter("status", "InferenceService")?;
        match api.patch_status(name, &params, &Patch::Apply(&patch)).await {
            Ok(answer) => {
                self.context.wrote(self.key, answer);
                Ok(())
            }
            // Deleted meanwhile.
            Err(error) if code(&error) == Some(404) => Ok(()),
            Err(error) if code(&error) == Some(409) => Err(Error::Outdated(name.clone())),
            Err(source) => Err(failed("status", "InferenceService", name, source)),
        }
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.context.client.clone(), &self.key.namespace)
    }

    /// The gate, and the count of what goes through it.
    fn enter(&self, verb: &'static str, kind: &'static str) -> Result<(), Error> {
        if !self.context.gate.is_open() {
            return Err(Error::NotLeading);
        }
        self.context.metrics.wrote(verb, kind);
        Ok(())
    }

    fn ours<K: Resource>(&self, object: &K) -> bool {
        controlled_by(object.meta(), self.uid)
    }

    async fn create(&self, object: &ControllerRevision) -> Result<(), Error> {
        const KIND: &str = <ControllerRevision as k8s_openapi::Resource>::KIND;
        let api: Api<ControllerRevision> = self.api();
        let name = object.name_any();
        let params = PostParams {
            field_manager: Some(names::MANAGER_SERVICE.into()),
            ..PostParams::default()
        };
        self.enter("create", KIND)?;
        let answer = match api.create(&params, object).await {
            Err(error) if code(&error) == Some(409) => self.ours_by_name(&api, &name).await?,
            answer => answer.map_err(|e| failed("create", KIND, &name, e))?,
        };
        self.context.indices.revisions.record(answer);
        Ok(())
    }

    /// What has the name already, where it is ours.
    async fn ours_by_name<K: Applied>(&self, api: &Api<K>, name: &str) -> Result<K, Error> {
        let found = api
            .get(name)
            .await
            .map_err(|e| failed("get", K::KIND, name, e))?;
        if self.ours(&found) {
            Ok(found)
        } else {
            Err(Error::Foreign(Foreign {
                kind: K::KIND,
                name: name.to_owned(),
            }))
        }
    }

    async fn patch<K: Applied>(
        &self,
        index: &Index<K>,
        object: &K,
        ours: bool,
    ) -> Result<(), Error> {
        let api: Api<K> = self.api();
        let name = object.name_any();
        let body = applied(object).map_err(|e| failed("apply", K::KIND, &name, e))?;
        let gentle = PatchParams::apply(names::MANAGER_SERVICE);
        let force = gentle.clone().force();
        self.enter("apply", K::KIND)?;
        let answer = if ours {
            api.patch(&name, &force, &Patch::Apply(&body)).await
        } else {
            let mut new = body.clone();
            new["metadata"]["resourceVersion"] = json!(NO_VERSION);
            api.patch(&name, &gentle, &Patch::Apply(&new)).await
        };
        let answer = match answer {
            Err(error) if code(&error) == Some(409) && !ours => {
                self.ours_by_name(&api, &name).await?;
                self.enter("apply", K::KIND)?;
                api.patch(&name, &force, &Patch::Apply(&body)).await
            }
            answer => answer,
        };
        index.record(answer.map_err(|e| failed("apply", K::KIND, &name, e))?);
        Ok(())
    }

    /// A route. Its definition may have been removed a moment ago: then it is looked for anew, and nothing is lost by it.
    async fn route<K: Applied>(
        &self,
        index: &Index<K>,
        object: &K,
        ours: bool,
    ) -> Result<(), Error> {
        match self.patch(index, object, ours).await {
            Err(Error::Api { source, .. }) if code(&source) == Some(404) => {
                self.context.gateways.look();
                Ok(())
            }
            done => done,
        }
    }

    async fn scale(&self, name: &str, replicas: i32) -> Result<(), Error> {
        let api: Api<Deployment> = self.api();
        let body = json!({
            "apiVersion": Deployment::api_version(&()), "kind": "Deployment",
            "metadata": {"name": name}, "spec": {"replicas": replicas},
        });
        let params = PatchParams::apply(names::MANAGER_AUTOSCALER).force();
        self.enter("scale", "Deployment")?;
        let answer = api.patch(name, &params, &Patch::Apply(&body)).await;
        self.context
            .indices
            .deployments
            .record(answer.map_err(|e| failed("scale", "Deployment", name, e))?);
        Ok(())
    }

    async fn mark(&self, name: &str, at: &str) -> Result<(), Error> {
        const KIND: &str = <ControllerRevision as k8s_openapi::Resource>::KIND;
        let api: Api<ControllerRevision> = self.api();
        let body = json!({"metadata": {"annotations": {names::STABLE: at}}});
        let params = PatchParams {
            field_manager: Some(names::MANAGER_SERVICE.into()),
            ..PatchParams::default()
        };
        self.enter("mark", KIND)?;
        let answer = api.patch(name, &params, &Patch::Merge(&body)).await;
        self.context
            .indices
            .revisions
            .record(answer.map_err(|e| failed("mark", KIND, name, e))?);
        Ok(())
    }

    async fn delete<K: Applied>(
        &self,
        index: &Index<K>,
        name: &str,
        uid: &str,
    ) -> Result<(), Error> {
        self.remove::<K>(name, uid).await?;
        index.forget(self.key, name);
        Ok(())
    }

    /// A pod stays in the index until the watch says that it is gone: it is still ending.
    async fn delete_pod(&self, name: &str, uid: &str) -> Result<(), Error> {
        self.remove::<Pod>(name, uid).await
    }

    async fn remove<K>(&self, name: &str, uid: &str) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + k8s_openapi::Resource
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = self.api();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.into()),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        self.enter("delete", K::KIND)?;
        match api.delete(name, &params).await {
            Ok(_) => Ok(()),
            // Gone, or another object under the same name by now.
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            Err(source) => Err(failed("delete", K::KIND, name, source)),
        }
    }
}

/// An object as server-side apply takes it: with its version and kind.
pub(crate) fn applied<K>(object: &K) -> Result<Value, kube::Error>
where
    K: k8s_openapi::Resource + Serialize,
{
    let mut body = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
    body["apiVersion"] = json!(K::API_VERSION);
    body["kind"] = json!(K::KIND);
    Ok(body)
}

fn failed(verb: &'static str, kind: &'static str, name: &str, source: kube::Error) -> Error {
    match &source {
        kube::Error::Api(status) if matches!(status.code, 400 | 422) => Error::Refused {
            kind,
            name: name.into(),
            message: status.message.clone(),
        },
        _ => Error::Api {
            verb,
            kind,
            name: name.into(),
            source,
        },
    }
}
