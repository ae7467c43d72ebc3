//! Whether a live object still is what the operator wants.
//!
//! Every field that is wanted has to be there with its value; what others added (defaults, status, a
//! sidecar) is theirs. Lists with keys are compared by key, as server-side apply does, and amounts as
//! amounts. A wanted zero value matches an absent field, for the API server leaves it out.

use serde_json::Value;

use crate::quantity;

/// Keys of the lists that the operator writes, first match wins.
const LIST_KEYS: [&str; 6] = ["name", "mountPath", "containerPort", "port", "uid", "key"];

/// The path of the first field that differs, such as `spec.template.spec.containers[server].image`.
#[must_use]
pub fn differs(desired: &Value, live: &Value) -> Option<String> {
    compare("", desired, Some(live), Lists::ByKey)
}

/// The same for an object whose lists have one owner, atomic ones for server-side apply: what others added to them, or put
/// in another order, differs.
#[must_use]
pub fn differs_in_order(desired: &Value, live: &Value) -> Option<String> {
    compare("", desired, Some(live), Lists::InOrder)
}

/// How lists are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    ByKey,
    InOrder,
}

fn compare(path: &str, desired: &Value, live: Option<&Value>, lists: Lists) -> Option<String> {
    let Some(live) = live.filter(|live| !live.is_null()) else {
        return (!is_zero(desired)).then(|| path.to_owned());
    };
    match (desired, live) {
        (Value::Object(wanted), Value::Object(have)) => wanted.iter().find_map(|(key, value)| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            compare(&path, value, have.get(key), lists)
        }),
        (Value::Array(wanted), Value::Array(have)) => compare_lists(path, wanted, have, lists),
        (Value::String(a), Value::String(b)) if is_amount(path) => {
            (!quantity::same(a, b)).then(|| path.to_owned())
        }
        (a, b) => (a != b).then(|| path.to_owned()),
    }
}

fn compare_lists(path: &str, wanted: &[Value], have: &[Value], lists: Lists) -> Option<String> {
    let key = LIST_KEYS
        .into_iter()
        .filter(|_| lists == Lists::ByKey)
        .find(|key| !wanted.is_empty() && wanted.iter().all(|item| item.get(key).is_some()));
    match key {
        Some(key) => wanted.iter().find_map(|item| {
            let id = &item[key];
            let label = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
            let live = have.iter().find(|other| other.get(key) == Some(id));
            compare(&format!("{path}[{label}]"), item, live, lists)
        }),
        None if wanted.len() != have.len() => Some(path.to_owned()),
        None => wanted
            .iter()
            .zip(have)
            .enumerate()
            .find_map(|(i, (a, b))| compare(&format!("{path}[{i}]"), a, Some(b), lists)),
    }
}

fn is_amount(path: &str) -> bool {
    path.contains(".resources.") || path.ends_with(".sizeLimit") || path.ends_with(".divisor")
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_zero),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn desired() -> Value {
        json!({
            "metadata": {"labels": {"a": "1"}},
            "spec": {"template": {"spec": {
                "hostNetwork": false,
                "volumes": [{"name": "cache", "emptyDir": {}}],
                "containers": [{
                    "name": "server", "image": "i", "env": [{"name": "A", "value": ""}],
                    "ports": [{"containerPort": 8080}],
                    "args": ["x", "y"],
                    "resources": {"limits": {"cpu": "1000m"}},
                }],
            }}},
        })
    }

    #[test]
    fn defaults_other_owners_and_other_spellings_are_no_drift() {
        let mut live = desired();
        let container = &mut live["spec"]["template"]["spec"]["containers"][0];
        container["resources"]["limits"]["cpu"] = json!("1");
        container["imagePullPolicy"] = json!("IfNotPresent");
        container["ports"][0]["protocol"] = json!("TCP");
        container["env"] = json!([{"name": "FOREIGN", "value": "1"}, {"name": "A"}]);
        live["spec"]["template"]["spec"]["containers"]
            .as_array_mut()
            .expect("a list")
            .insert(0, json!({"name": "sidecar"}));
        let spec = live["spec"]["template"]["spec"]
            .as_object_mut()
            .expect("a map");
        spec.remove("hostNetwork");
        live["status"] = json!({"replicas": 1});
        assert_eq!(differs(&desired(), &live), None);
    }

    #[test]
    fn every_edit_of_a_wanted_field_is_named() {
        let edits = [
            (
                "/spec/template/spec/containers/0/image",
                "spec.template.spec.containers[server].image",
            ),
            (
                "/spec/template/spec/containers/0/args/1",
                "spec.template.spec.containers[server].args[1]",
            ),
            (
                "/spec/template/spec/containers/0/ports/0/containerPort",
                "spec.template.spec.containers[server].ports[8080]",
            ),
            (
                "/spec/template/spec/containers/0/resources/limits/cpu",
                "spec.template.spec.containers[server].resources.limits.cpu",
            ),
            ("/metadata/labels/a", "metadata.labels.a"),
        ];
        for (pointer, path) in edits {
            let mut live = desired();
            *live.pointer_mut(pointer).expect("exists") = json!("edited");
            assert_eq!(differs(&desired(), &live).as_deref(), Some(path));
        }
        let mut live = desired();
        live["spec"]["template"]["spec"]["containers"] = json!([]);
        assert_eq!(
            differs(&desired(), &live).as_deref(),
            Some("spec.template.spec.containers[server]")
        );
        let mut live = desired();
        live["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["x"]);
        assert_eq!(
            differs(&desired(), &live).as_deref(),
            Some("spec.template.spec.containers[server].args")
        );
    }
}
