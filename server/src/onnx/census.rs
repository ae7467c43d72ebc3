//! What is inside an ONNX file: inputs, outputs, operators, parameters, and how much memory a run needs at least.
//!
//! Input: the file. Output: a [`Census`]. Memory grows with the number of nodes and names, never with the
//! weights: a tensor's content is skipped, whether it is an initializer or stands in a node's attribute. Graphs inside
//! nodes (the bodies of If, Loop and Scan) are counted with the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader, Seek},
    path::Path,
};

use super::{
    BUILT_IN_DOMAINS, NotOnnx, OperatorSet, judge_start,
    wire::{Payload, Wire, malformed},
};

mod live;
mod tensor;
mod types;

pub use live::Activations;
pub use tensor::{External, Parameters};
pub use types::{Dim, Kind, Value, element_bits, element_name};

/// Graphs inside graphs: no exporter nests them deeper, and a hostile file must not exhaust the stack.
const MAX_DEPTH: usize = 32;
/// Longer texts (a producer's name, a key of the metadata) are told by their length only.
const MAX_TEXT: u64 = 64 << 10;
/// A node's or a value's part that is larger holds no name that anybody reads.
const MAX_PART: u64 = 16 << 20;

/// A file's content by the numbers.
#[derive(Debug, Default)]
pub struct Census {
    /// The file format's version.
    pub ir_version: i64,
    /// The program that wrote it, with its version, or empty.
    pub producer: String,
    /// As the author numbered it; 0 when nobody did.
    pub model_version: i64,
    /// The graph's name.
    pub graph: String,
    /// Keys and values that the exporter left.
    pub metadata: BTreeMap<String, String>,
    /// The version of each operator set; ONNX's own is `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// Functions that the file defines: (domain, name).
    pub functions: BTreeSet<(String, String)>,
    /// What a request must bring; inputs with a default in the file are marked.
    pub inputs: Vec<Value>,
    /// What a run gives.
    pub outputs: Vec<Value>,
    /// (domain, operator) → how many nodes; ONNX's own domain is empty.
    pub operators: BTreeMap<(String, String), u64>,
    /// The weights.
    pub parameters: Parameters,
    /// What a run holds beside the weights.
    pub activations: Activations,
}

impl Census {
    /// Operators that neither ONNX Runtime's domains nor the file's functions define.
    pub fn custom_operators(&self) -> impl Iterator<Item = (&str, &str)> {
        let known = |operator: &(String, String)| {
            BUILT_IN_DOMAINS.contains(&operator.0.as_str()) || self.functions.contains(operator)
        };
        self.operators
            .keys()
            .filter(move |operator| !known(operator))
            .map(|(domain, name)| (domain.as_str(), name.as_str()))
    }

    /// How many nodes there are, those in the bodies of other nodes included.
    #[must_use]
    pub fn nodes(&self) -> u64 {
        self.operators.values().sum()
    }
}

/// Counts what is in the file at `path`.
pub fn census(path: &Path) -> Result<Census, NotOnnx> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    read(&mut BufReader::with_capacity(64 << 10, file), length)
}

fn read<R: BufRead + Seek>(reader: &mut R, length: u64) -> Result<Census, NotOnnx> {
    judge_start(reader.fill_buf()?)?;
    let mut census = Census::default();
    let mut graph = None;
    let mut producer_version = String::new();
    let mut wire = Wire::new(reader, length);
    while wire.at < length {
        match wire.field(length)? {
            (1, Payload::Varint(version)) => census.ir_version = version as i64,
            (2, Payload::Bytes(n)) => census.producer = text(&mut wire, n)?,
            (3, Payload::Bytes(n)) => producer_version = text(&mut wire, n)?,
            (5, Payload::Varint(version)) => census.model_version = version as i64,
            (7, Payload::Bytes(n)) => {
                let end = wire.at + n;
                let mut flow = live::Flow::default();
                read_graph(&mut wire, end, &mut census, Some(&mut flow), 0)?;
                graph = Some(flow);
            }
            (8, Payload::Bytes(n)) => {
                let set: OperatorSet = part(&mut wire, n, "an operator set")?;
                let domain = match set.domain.as_str() {
                    "" => "ai.onnx".to_owned(),
                    _ => set.domain,
                };
                census.opsets.insert(domain, set.version);
            }
            (14, Payload::Bytes(n)) => {
                let entry: types::Entry = part(&mut wire, n, "an entry of the metadata")?;
                census.metadata.insert(entry.key, entry.value);
            }
            (25, Payload::Bytes(n)) => {
                let end = wire.at + n;
                let function = read_function(&mut wire, end)?;
                census.functions.insert(function);
            }
            (0, _) => return Err(malformed("a field has the number 0")),
            (_, Payload::Bytes(n)) => wire.skip(n)?,
            _ => {}
        }
    }
    let Some(flow) = graph else {
        return Err(malformed("it holds no graph"));
    };
    if !producer_version.is_empty() {
        census.producer = format!("{} {producer_version}", census.producer)
            .trim()
            .to_owned();
    }
    for input in &mut census.inputs {
        input.has_default = census.parameters.names.contains(&input.name);
    }
    census.activations = flow.peak(&census.inputs, &census.outputs);
    Ok(census)
}

/// Reads a graph. The outermost one, at depth 0, brings the model's inputs and outputs; `flow` follows its values.
fn read_graph<R: BufRead + Seek>(
    wire: &mut Wire<'_, R>,
    end: u64,
    census: &mut Census,
    mut flow: Option<&mut live::Flow>,
    depth: usize,
) -> Result<(), NotOnnx> {
    if depth > MAX_DEPTH {
        return Err(malformed("its graphs are nested deeper than 32 levels"));
    }
    while wire.at < end {
        match wire.field(end)? {
            (1, Payload::Bytes(n)) => {
                let node = read_node(wire, wire.at + n, census, depth)?;
                if let Some(flow) = flow.as_deref_mut() {
                    flow.node(&node.inputs, &node.outputs);
                }
                *census.operators.entry(node.operator).or_default() += 1;
            }
            (2, Payload::Bytes(n)) if depth == 0 => census.graph = text(wire, n)?,
            (5, Payload::Bytes(n)) => {
                let tensor = tensor::read(wire, wire.at + n)?;
                census.parameters.add(tensor);
            }
            (15, Payload::Bytes(n)) => {
                let end = wire.at + n;
                tensor::read_sparse(wire, end, &mut census.parameters)?;
            }
            (11, Payload::Bytes(n)) if depth == 0 => {
                census.inputs.push(types::read(wire, n, "an input")?);
            }
            (12, Payload::Bytes(n)) if depth == 0 => {
                census.outputs.push(types::read(wire, n, "an output")?);
            }
            (13, Payload::Bytes(n)) => {
                let value = types::read(wire, n, "a value")?;
                if let Some(flow) = flow.as_deref_mut() {
                    flow.shape(&value);
                }
            }
            (0, _) => return Err(malformed("a field of its graph has the number 0")),
            (_, Payload::Bytes(n)) => wire.skip(n)?,
            _ => {}
        }
    }
    Ok(())
}

#[derive(Default)]
struct Node {
    operator: (String, String),
    inputs: Vec<String>,
    outputs: Vec<String>,
}

fn read_node<R: BufRead + Seek>(
    wire: &mut Wire<'_, R>,
    end: u64,
    census: &mut Census,
    depth: usize,
) -> Result<Node, NotOnnx> {
    let mut node = Node::default();
    while wire.at < end {
        match wire.field(end)? {
            (1, Payload::Bytes(n)) => node.inputs.push(text(wire, n)?),
            (2, Payload::Bytes(n)) => node.outputs.push(text(wire, n)?),
            (4, Payload::Bytes(n)) => node.operator.1 = text(wire, n)?,
            (5, Payload::Bytes(n)) => read_attribute(wire, wire.at + n, census, depth)?,
            (7, Payload::Bytes(n)) => node.operator.0 = text(wire, n)?,
            (0, _) => return Err(malformed("a field of a node has the number 0")),
            (_, Payload::Bytes(n)) => wire.skip(n)?,
            _ => {}
        }
    }
    if node.operator.0 == "ai.onnx" {
        node.operator.0.clear();
    }
    Ok(node)
}

/// A function's domain and name; its body is counted where it is called, as one node.
fn read_function<R: BufRead + Seek>(
    wire: &mut Wire<'_, R>,
    end: u64,
) -> Result<(String, String), NotOnnx> {
    let (mut domain, mut name) = (String::new(), String::new());
    while wire.at < end {
        match wire.field(end)? {
            (1, Payload::Bytes(n)) => name = text(wire, n)?,
            (10, Payload::Bytes(n)) => domain = text(wire, n)?,
            (_, Payload::Bytes(n)) => wire.skip(n)?,
            _ => {}
        }
    }
    Ok((domain, name))
}

/// Tensors count as parameters, graphs as parts of the whole; numbers and texts are left out.
fn read_attribute<R: BufRead + Seek>(
    wire: &mut Wire<'_, R>,
    end: u64,
    census: &mut Census,
    depth: usize,
) -> Result<(), NotOnnx> {
    while wire.at < end {
        match wire.field(end)? {
            (5 | 10, Payload::Bytes(n)) => {
                let tensor = tensor::read(wire, wire.at + n)?;
                census.parameters.add(tensor);
            }
            (22 | 23, Payload::Bytes(n)) => {
                let end = wire.at + n;
                tensor::read_sparse(wire, end, &mut census.parameters)?;
            }
            (6 | 11, Payload::Bytes(n)) => {
                let end = wire.at + n;
                read_graph(wire, end, census, None, depth + 1)?;
            }
            (_, Payload::Bytes(n)) => wire.skip(n)?,
            _ => {}
        }
    }
    Ok(())
}

fn text<R: BufRead + Seek>(wire: &mut Wire<'_, R>, n: u64) -> Result<String, NotOnnx> {
    if n > MAX_TEXT {
        wire.skip(n)?;
        return Ok(format!("(a text of {n} bytes)"));
    }
    Ok(String::from_utf8_lossy(&wire.take(n)?).into_owned())
}

fn part<M, R>(wire: &mut Wire<'_, R>, n: u64, what: &str) -> Result<M, NotOnnx>
where
    M: prost::Message + Default,
    R: BufRead + Seek,
{
    if n > MAX_PART {
        return Err(NotOnnx::Malformed(format!("{what} has {n} bytes")));
    }
    wire.message(n, what)
}

#[cfg(test)]
mod tests;
