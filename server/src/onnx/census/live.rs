//! How many bytes of values a run holds at once, at least: each lives from the node that makes it to the
//! last node that reads it.
//!
//! An estimate from the graph alone: open dimensions count as 1, values without a shape in the file as nothing, and
//! what ONNX Runtime fuses, reuses in place or pads is not seen.

use std::collections::HashMap;

use super::types::Value;

/// What a run holds beside the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Activations {
    /// The most bytes that live at once.
    pub peak_bytes: u64,
    /// Values whose size the file tells.
    pub known: usize,
    /// All values that nodes make or requests bring.
    pub values: usize,
}

/// The values of the outermost graph, in the order of its nodes.
#[derive(Default)]
pub(super) struct Flow {
    ids: HashMap<String, usize>,
    bytes: Vec<Option<u64>>,
    nodes: Vec<(Vec<usize>, Vec<usize>)>,
}

impl Flow {
    fn id(&mut self, name: &str) -> usize {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.bytes.len();
        self.ids.insert(name.to_owned(), id);
        self.bytes.push(None);
        id
    }

    fn ids(&mut self, names: &[String]) -> Vec<usize> {
        // An optional input or output that is left out has an empty name.
        let present = names.iter().filter(|name| !name.is_empty());
        present.map(|name| self.id(name)).collect()
    }

    pub(super) fn node(&mut self, inputs: &[String], outputs: &[String]) {
        let node = (self.ids(inputs), self.ids(outputs));
        self.nodes.push(node);
    }

    pub(super) fn shape(&mut self, value: &Value) {
        let id = self.id(&value.name);
        self.bytes[id] = value.bytes().or(self.bytes[id]);
    }

    /// The peak over all nodes. Weights are not made by nodes and count elsewhere.
    pub(super) fn peak(mut self, inputs: &[Value], outputs: &[Value]) -> Activations {
        for value in inputs.iter().chain(outputs) {
            self.shape(value);
        }
        let end = self.nodes.len();
        let mut born = vec![None; self.bytes.len()];
        let mut dies = vec![0; self.bytes.len()];
        for input in inputs.iter().filter(|input| !input.has_default) {
            born[self.ids[&input.name]] = Some(0);
        }
        for (at, (reads, makes)) in self.nodes.iter().enumerate() {
            for id in reads {
                dies[*id] = at;
            }
            for id in makes {
                born[*id].get_or_insert(at);
                dies[*id] = dies[*id].max(at);
            }
        }
        for output in outputs {
            dies[self.ids[&output.name]] = end;
        }
        let mut steps = vec![(0_u64, 0_u64); end + 2];
        let mut activations = Activations::default();
        for (id, born) in born.iter().enumerate() {
            let Some(born) = *born else { continue };
            activations.values += 1;
            let Some(bytes) = self.bytes[id] else {
                continue;
            };
            activations.known += 1;
            steps[born].0 = steps[born].0.saturating_add(bytes);
            let after = &mut steps[dies[id].max(born) + 1].1;
            *after = after.saturating_add(bytes);
        }
        let mut live = 0_u64;
        for (made, freed) in steps {
            live = live.saturating_sub(freed).saturating_add(made);
            activations.peak_bytes = activations.peak_bytes.max(live);
        }
        activations
    }
}
