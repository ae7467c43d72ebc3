//! What an ONNX file says about itself before ONNX Runtime sees it.
//!
//! Input: the file, read with constant memory: weights are skipped, never loaded. Output: opsets, operator
//! domains and the kinds of the outputs, or a sentence that says why this is no ONNX model. This
//! reads the protobuf's outline only: what a graph computes is ONNX Runtime's business.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader, Seek},
    path::Path,
};

use prost::Message;

use wire::{Payload, Wire, malformed};

pub mod census;
mod wire;

/// The outline of a model.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The file format's version.
    pub ir_version: i64,
    /// The program that wrote it, or empty.
    pub producer: String,
    /// The version of each operator set; ONNX's own is `""`.
    pub opsets: BTreeMap<String, i64>,
    /// The operators that come from other domains than ONNX's own: (domain, operator).
    pub foreign_operators: BTreeSet<(String, String)>,
    /// Functions that the file itself defines: (domain, name).
    pub functions: BTreeSet<(String, String)>,
    /// Outputs that are no tensors, with what they are.
    pub odd_outputs: Vec<(String, &'static str)>,
}

impl Outline {
    /// The version of ONNX's own operator set.
    #[must_use]
    pub fn opset(&self) -> i64 {
        self.opsets.get("").copied().unwrap_or_default()
    }

    /// Operators that neither ONNX Runtime's domains nor the file's functions define.
    pub fn custom_operators(&self) -> impl Iterator<Item = &(String, String)> {
        self.foreign_operators.iter().filter(|operator| {
            !BUILT_IN_DOMAINS.contains(&operator.0.as_str()) && !self.functions.contains(operator)
        })
    }
}

/// The domains whose operators ONNX Runtime brings along.
const BUILT_IN_DOMAINS: [&str; 8] = [
    "",
    "ai.onnx",
    "ai.onnx.ml",
    "ai.onnx.training",
    "ai.onnx.preview.training",
    "com.microsoft",
    "com.microsoft.nchwc",
    "com.microsoft.experimental",
];

/// Why a file is no ONNX model; each reads on after "FILE ".
#[derive(Debug, thiserror::Error)]
pub enum NotOnnx {
    /// Nothing in it.
    #[error("is empty: expected an ONNX model")]
    Empty,
    /// A web page or XML.
    #[error(
        "is a web page or XML (it starts with {0:?}), not an ONNX model: \
         check that the URI leads to the file itself and needs no login"
    )]
    Html(String),
    /// Text of another kind.
    #[error(
        "is text (it starts with {0:?}), not an ONNX model: check that the URI leads to the file itself"
    )]
    Text(String),
    /// It ends in the middle of a field.
    #[error(
        "is truncated: a part that starts at byte {at} needs {need} bytes and the file ends after {has}; \
         fetch or export it again"
    )]
    Truncated {
        /// Where the part's content starts.
        at: u64,
        /// How long it says it is.
        need: u64,
        /// How many bytes of it are there.
        has: u64,
    },
    /// Not the wire format, or not this message.
    #[error("is not an ONNX model: {0}")]
    Malformed(String),
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(string, tag = "7")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "10")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

/// For most only which kind is set matters, so that every kind is read as raw bytes.
#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(bytes, optional, tag = "1")]
    tensor: Option<Vec<u8>>,
    #[prost(bytes, optional, tag = "4")]
    sequence: Option<Vec<u8>>,
    #[prost(bytes, optional, tag = "5")]
    map: Option<Vec<u8>>,
    #[prost(bytes, optional, tag = "8")]
    sparse: Option<Vec<u8>>,
    #[prost(bytes, optional, tag = "9")]
    optional: Option<Vec<u8>>,
}

impl Type {
    fn odd_kind(&self) -> Option<&'static str> {
        [
            (&self.sequence, "a sequence"),
            (&self.map, "a map"),
            (&self.sparse, "a sparse tensor"),
            (&self.optional, "an optional"),
        ]
        .into_iter()
        .find_map(|(field, kind)| field.as_ref().map(|_| kind))
    }
}

/// Reads the outline of the file at `path`.
pub fn outline(path: &Path) -> Result<Outline, NotOnnx> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    read_outline(&mut BufReader::with_capacity(64 << 10, file), length)
}

fn read_outline<R: BufRead + Seek>(reader: &mut R, length: u64) -> Result<Outline, NotOnnx> {
    judge_start(reader.fill_buf()?)?;
    let mut outline = Outline::default();
    let mut has_graph = false;
    let mut wire = Wire::new(reader, length);
    while wire.at < length {
        match wire.field(length)? {
            (1, Payload::Varint(version)) => outline.ir_version = version as i64,
            (2, Payload::Bytes(n)) => {
                outline.producer = String::from_utf8_lossy(&wire.take(n)?).into_owned();
            }
            (7, Payload::Bytes(n)) => {
                has_graph = true;
                let end = wire.at + n;
                read_graph(&mut wire, end, &mut outline)?;
            }
            (8, Payload::Bytes(n)) => {
                let set: OperatorSet = wire.message(n, "an operator set")?;
                let domain = if set.domain == "ai.onnx" {
                    String::new()
                } else {
                    set.domain
                };
                outline.opsets.insert(domain, set.version);
            }
            (25, Payload::Bytes(n)) => {
                let function: Function = wire.message(n, "a function")?;
                outline.functions.insert((function.domain, function.name));
            }
            (0, _) => return Err(malformed("a field has the number 0")),
            (_, Payload::Bytes(n)) => wire.skip(n)?,
            _ => {}
        }
    }
    if !has_graph {
        return Err(malformed("it holds no graph"));
    }
    Ok(outline)
}

fn read_graph<R: BufRead + Seek>(
    wire: &mut Wire<'_, R>,
    end: u64,
    outline: &mut Outline,
) -> Result<(), NotOnnx> {
    while wire.at < end {
        match wire.field(end)? {
            (1, Payload::Bytes(n)) => {
                let node: Node = wire.message(n, "a node")?;
                if !node.domain.is_empty() && node.domain != "ai.onnx" {
                    outline
                        .foreign_operators
                        .insert((node.domain, node.op_type));
                }
            }
            (12, Payload::Bytes(n)) => {
                let info: ValueInfo = wire.message(n, "an output")?;
                if let Some(kind) = info.r#type.as_ref().and_then(Type::odd_kind) {
                    outline.odd_outputs.push((info.name, kind));
                }
            }
            (0, _) => return Err(malformed("a field of its graph has the number 0")),
            (_, Payload::Bytes(n)) => wire.skip(n)?,
            _ => {}
        }
    }
    Ok(())
}

/// Web pages and text are the usual things that stand where a model should.
fn judge_start(start: &[u8]) -> Result<(), NotOnnx> {
    if start.is_empty() {
        return Err(NotOnnx::Empty);
    }
    let text = &start[..start.len().min(64)];
    let shown = || {
        String::from_utf8_lossy(&text[..text.len().min(24)])
            .trim()
            .to_owned()
    };
    let first = start
        .trim_ascii_start()
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(start.trim_ascii_start());
    if first.starts_with(b"<") {
        return Err(NotOnnx::Html(shown()));
    }
    // A model starts with 0x08, its format's version; printable text of some length never does.
    let printable = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
    if text.iter().all(printable) {
        return Err(NotOnnx::Text(shown()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Outline, NotOnnx> {
        read_outline(&mut io::Cursor::new(bytes), bytes.len() as u64)
    }

    fn bytes_field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut field);
        field.extend_from_slice(content);
        field
    }

    fn model() -> Vec<u8> {
        let node = [bytes_field(4, b"Fancy"), bytes_field(7, b"acme")].concat();
        let output = [
            bytes_field(1, b"probabilities"),
            bytes_field(2, &bytes_field(4, b"")),
        ]
        .concat();
        let weights = bytes_field(5, &[7; 5000]);
        let graph = [bytes_field(1, &node), weights, bytes_field(12, &output)].concat();
        let opset = [bytes_field(1, b""), vec![2 << 3, 17]].concat();
        [
            vec![8, 9],
            bytes_field(2, b"acme-export"),
            bytes_field(7, &graph),
            bytes_field(8, &opset),
        ]
        .concat()
    }

    #[test]
    fn the_outline_is_read_without_the_weights() {
        let outline = read(&model()).unwrap();
        assert_eq!((outline.ir_version, outline.opset()), (9, 17));
        assert_eq!(outline.producer, "acme-export");
        assert_eq!(
            outline.odd_outputs,
            [("probabilities".to_owned(), "a sequence")]
        );
        let custom: Vec<_> = outline.custom_operators().collect();
        assert_eq!(custom, [&("acme".to_owned(), "Fancy".to_owned())]);
    }

    #[test]
    fn a_model_cut_anywhere_is_never_taken_for_a_whole_one_with_a_panic() {
        let whole = model();
        for cut in 0..whole.len() {
            // A cut between two top-level fields leaves a well-formed message: ONNX Runtime judges it.
            let _ = read(&whole[..cut]);
        }
        let Err(NotOnnx::Truncated { has, .. }) = read(&whole[..2000]) else {
            panic!("a cut graph must be called truncated");
        };
        assert!(has < 2000);
    }

    #[test]
    fn what_is_no_model_is_called_by_its_name() {
        let sentence = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(sentence(b"").contains("is empty"));
        assert!(sentence(b"\n <!DOCTYPE html><html>").contains("web page"));
        assert!(sentence(b"{\"error\": \"no such file\"}").contains("is text"));
        assert!(sentence(b"version https://git-lfs.github.com/spec/v1\noid").contains("is text"));
        assert!(sentence(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR").contains("is "));
        assert!(sentence(&[8, 9]).contains("holds no graph"));
        assert!(sentence(&[0xff; 32]).contains("more than ten bytes"));
    }
}
