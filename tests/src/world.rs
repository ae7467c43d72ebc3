//! A test's own namespace, a client, and waits that explain themselves.

use std::{
    fmt::{Debug, Write as _},
    hash::{BuildHasher, RandomState},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::{ConfigMap, Namespace, Pod, Service},
        events::v1::Event,
        policy::v1::PodDisruptionBudget,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::{NamespaceResourceScope, Status},
};
use ortolan_crds::InferenceService;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::operator::Log;

/// How long a test waits for anything: the machine may be busy, and a test that passes never waits it
/// out.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How long a whole test may take: some await came to no end.
const LONGEST: Duration = Duration::from_secs(240);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(150);
/// The definition is the whole API server's: who changes it, or counts requests, which a change causes
/// too, says so.
static DEFINITION: RwLock<()> = RwLock::new(());
/// A digest that a user may have given; with it no pod has to be asked what it fetched.
pub const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A test's own namespace.
pub struct World {
    /// An administrator.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    logs: Arc<Mutex<Vec<(String, Log)>>>,
}

/// Runs a test in a namespace of its own, and prints that namespace when the test fails.
pub fn world<F>(test: impl FnOnce(Arc<World>) -> F)
where
    F: Future<Output = ()>,
{
    world_for(LONGEST, test);
}

/// The same, for a test that may take longer or has to end sooner.
pub fn world_for<F>(longest: Duration, test: impl FnOnce(Arc<World>) -> F)
where
    F: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let world = Arc::new(World::new().await);
        let test = tokio::time::timeout(longest, test(world.clone()));
        let test = test.map(|ended| ended.expect("the test ends in time"));
        let result = AssertUnwindSafe(test).catch_unwind().await;
        if let Err(panic) = result {
            eprintln!("{}", world.story().await);
            std::panic::resume_unwind(panic);
        }
    });
}

/// Held by a test that writes the CustomResourceDefinition.
pub fn definition_may_change() -> RwLockWriteGuard<'static, ()> {
    DEFINITION.write().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a test that would be disturbed by that.
pub fn definition_stays() -> RwLockReadGuard<'static, ()> {
    DEFINITION.read().unwrap_or_else(PoisonError::into_inner)
}

/// The kubeconfig's cluster, as its administrator.
pub async fn config() -> Config {
    Config::infer()
        .await
        .expect("KUBECONFIG names an API server: start the tests by tests/run")
}

fn install_definitions() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let install = async {
            let client = Client::try_from(config().await).expect("a client");
            for crd in ortolan_crds::all() {
                apply_definition(&client, &crd).await;
            }
        };
        // A runtime of its own: the first test's may not be blocked from within.
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(install);
        });
        thread.join().expect("the definitions are installed");
    });
}

/// Applies a CustomResourceDefinition, as an administrator does, and waits until it is served.
pub async fn apply_definition(
    client: &Client,
    crd: &CustomResourceDefinition,
) -> CustomResourceDefinition {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("ortolan-tests").force();
    let applied = api
        .patch(&crd.name_any(), &params, &Patch::Apply(crd))
        .await
        .expect("the CustomResourceDefinition is accepted");
    let name = crd.name_any();
    let established = kube::runtime::conditions::is_crd_established();
    let established = kube::runtime::wait::await_condition(api.clone(), &name, established);
    tokio::time::timeout(PATIENCE, established)
        .await
        .expect("the CustomResourceDefinition is established in time")
        .expect("the CustomResourceDefinition can be watched");
    applied
}

impl World {
    async fn new() -> Self {
        install_definitions();
        let client = Client::try_from(config().await).expect("a client");
        let test = std::thread::current()
            .name()
            .unwrap_or("test")
            .rsplit("::")
            .next()
            .unwrap_or("test")
            .replace('_', "-");
        let unique = RandomState::new().hash_one(()) >> 36;
        let namespace = format!("{}-{unique:07x}", &test[..test.len().min(40)]).replace("--", "-");
        let world = Self {
            client,
            namespace,
            logs: Arc::default(),
        };
        world.create_namespace(&world.namespace).await;
        world
    }

    /// Makes a namespace.
    pub async fn create_namespace(&self, name: &str) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
        api.create(&PostParams::default(), &namespace)
            .await
            .expect("a namespace of the test's own");
    }

    /// The same test, in another namespace.
    pub async fn beside(&self, suffix: &str) -> Self {
        let namespace = format!("{}-{suffix}", self.namespace);
        self.create_namespace(&namespace).await;
        Self {
            client: self.client.clone(),
            namespace,
            logs: self.logs.clone(),
        }
    }

    /// Keeps an operator's log for when the test fails.
    pub(crate) fn keep_log(&self, name: &str, log: Log) {
        self.logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name.to_owned(), log));
    }

    /// Objects of this namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an InferenceService.
    pub async fn create(&self, name: &str, spec: Value) -> InferenceService {
        self.try_create(name, spec)
            .await
            .expect("the API server accepts the InferenceService")
    }

    /// Creates an InferenceService, if the API server lets it.
    ///
    /// # Errors
    /// What the API server has against it.
    pub async fn try_create(
        &self,
        name: &str,
        spec: Value,
    ) -> Result<InferenceService, Box<Status>> {
        self.post("fieldManager=kubectl", name, spec).await
    }

    /// As [`World::try_create`], without doing it.
    ///
    /// # Errors
    /// What the API server has against it.
    pub async fn try_dry(&self, name: &str, spec: Value) -> Result<InferenceService, Box<Status>> {
        self.post("dryRun=All", name, spec).await
    }

    /// The spec need not be one that our types can hold.
    async fn post(
        &self,
        query: &str,
        name: &str,
        spec: Value,
    ) -> Result<InferenceService, Box<Status>> {
        let object = json!({
            "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
            "metadata": {"name": name}, "spec": spec,
        });
        let url = InferenceService::url_path(&(), Some(&self.namespace));
        let request = http::Request::post(format!("{url}?{query}"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(object.to_string().into_bytes())
            .expect("a request");
        match self.client.request(request).await {
            Ok(made) => Ok(made),
            Err(kube::Error::Api(status)) => Err(status),
            Err(error) => panic!("the API server does not answer: {error}"),
        }
    }

    /// Reads an object that has to exist.
    pub async fn get<K>(&self, name: &str) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let got = self.api::<K>().get(name).await;
        got.unwrap_or_else(|e| panic!("{} {name}: {e}", K::kind(&())))
    }

    /// Changes an object by a merge patch, as a person does.
    pub async fn edit<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let params = PatchParams {
            field_manager: Some("kubectl-edit".into()),
            ..PatchParams::default()
        };
        let edited = self
            .api::<K>()
            .patch(name, &params, &Patch::Merge(patch))
            .await;
        edited.unwrap_or_else(|e| panic!("{} {name} cannot be edited: {e}", K::kind(&())))
    }

    /// Looks again and again until there is an answer; fails the test with the last reason why not.
    pub async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<T, String>,
    ) -> T {
        let start = Instant::now();
        loop {
            match look().await {
                Ok(answer) => return answer,
                Err(why) if start.elapsed() > PATIENCE => {
                    panic!("{what}: not within {} s; {why}", PATIENCE.as_secs())
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Waits until the InferenceService's `Ready` has this status and reason for its current generation.
    pub async fn until_ready_is(&self, name: &str, status: &str, reason: &str) -> InferenceService {
        let what = format!("{name} becomes Ready={status} {reason}");
        self.until_service(&what, name, |service| {
            let ready = condition(service, "Ready");
            ready.is_some_and(|c| c.status == status && c.reason == reason) && is_observed(service)
        })
        .await
    }

    /// Waits until the InferenceService looks like this.
    pub async fn until_service(
        &self,
        what: &str,
        name: &str,
        is: impl Fn(&InferenceService) -> bool,
    ) -> InferenceService {
        self.until(what, async || {
            let service: InferenceService = self.get(name).await;
            if is(&service) {
                Ok(service)
            } else {
                Err(format!("its status is {:#?}", service.status))
            }
        })
        .await
    }

    /// Waits until the object is there and looks like this.
    pub async fn until_object<K>(&self, what: &str, name: &str, is: impl Fn(&K) -> bool) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        self.until(what, async || {
            match self
                .api::<K>()
                .get_opt(name)
                .await
                .map_err(|e| e.to_string())?
            {
                Some(object) if is(&object) => Ok(object),
                Some(_) => Err(format!("{} {name} is otherwise", K::kind(&()))),
                None => Err(format!("{} {name} does not exist", K::kind(&()))),
            }
        })
        .await
    }

    /// Waits until the object is gone.
    pub async fn until_gone<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let what = format!("{} {name} goes", K::kind(&()));
        self.until(&what, async || {
            match self
                .api::<K>()
                .get_opt(name)
                .await
                .map_err(|e| e.to_string())?
            {
                Some(_) => Err("it is still there".into()),
                None => Ok(()),
            }
        })
        .await;
    }

    /// Waits for an event about the InferenceService whose note contains the words.
    pub async fn until_event(&self, name: &str, reason: &str, words: &str) -> Event {
        let what = format!("an event {reason} with {words:?} about {name}");
        self.until(&what, async || {
            let events = self.events(name).await;
            let found = events.iter().find(|e| {
                e.reason.as_deref() == Some(reason)
                    && e.note.as_deref().unwrap_or_default().contains(words)
            });
            let told: Vec<_> = events.iter().map(|e| (&e.reason, &e.note)).collect();
            found.cloned().ok_or_else(|| format!("told was: {told:#?}"))
        })
        .await
    }

    /// Events about an InferenceService.
    pub async fn events(&self, name: &str) -> Vec<Event> {
        let events = self.api::<Event>().list(&ListParams::default()).await;
        let events = events.expect("events can be listed").items;
        let about = |event: &Event| event.regarding.as_ref().and_then(|r| r.name.clone());
        events
            .into_iter()
            .filter(|event| about(event).as_deref() == Some(name))
            .collect()
    }

    /// What a person would ask for: objects, events, logs.
    pub async fn story(&self) -> String {
        let mut story = format!("\n===== namespace {}\n", self.namespace);
        self.tell::<InferenceService>(&mut story).await;
        self.tell::<ControllerRevision>(&mut story).await;
        self.tell::<Deployment>(&mut story).await;
        self.tell::<Service>(&mut story).await;
        self.tell::<PodDisruptionBudget>(&mut story).await;
        self.tell::<ConfigMap>(&mut story).await;
        self.tell::<Pod>(&mut story).await;
        let events = self.api::<Event>().list(&ListParams::default()).await;
        for event in events.map(|list| list.items).unwrap_or_default() {
            let _ = writeln!(
                story,
                "event {} {} {}: {}",
                event.type_.unwrap_or_default(),
                event.regarding.and_then(|r| r.name).unwrap_or_default(),
                event.reason.unwrap_or_default(),
                event.note.unwrap_or_default()
            );
        }
        for (name, log) in self
            .logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let _ = writeln!(story, "===== log of {name}\n{}", log.text());
        }
        story
    }

    async fn tell<K>(&self, story: &mut String)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Serialize
            + Debug,
    {
        let objects = self.api::<K>().list(&ListParams::default()).await;
        for mut object in objects.map(|list| list.items).unwrap_or_default() {
            object.managed_fields_mut().clear();
            let yaml = ortolan_crds::to_yaml(&object).unwrap_or_default();
            let _ = writeln!(
                story,
                "--- # {} {}\n{yaml}",
                K::kind(&()),
                object.name_any()
            );
        }
    }
}

/// A condition of an InferenceService.
#[must_use]
pub fn condition<'a>(
    service: &'a InferenceService,
    kind: &str,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let conditions = &service.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the status describes the current spec, at the top and in each condition.
#[must_use]
pub fn is_observed(service: &InferenceService) -> bool {
    let generation = service.metadata.generation;
    service.status.as_ref().is_some_and(|status| {
        status.observed_generation == generation
            && status
                .conditions
                .iter()
                .all(|condition| condition.observed_generation == generation)
    })
}

/// The smallest useful spec, with a digest.
#[must_use]
pub fn spec(file: &str) -> Value {
    json!({"model": {"uri": format!("https://models.example.com/{file}.onnx"), "digest": DIGEST}})
}
