//! A line of a golden set: what is asked, and what is to be answered.
//!
//! | asked | expected |
//! |---|---|
//! | `"request": {V2 inference request}` | `"expected": {"class": 3}`, or one for each row: `[3, 7]`; of `"output": "name"` where there are several |
//! | | `"expected": {"outputs": [{"name": "y", "data": […]}], "tolerance": 0.001}` |
//! | `"image": "address beside the file"`, or base64 | `"label": "daisy"` |

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{error::Category, value::RawValue};

use super::values::Values;

/// More would keep a pod busy for a long time and tell little more.
pub const MAX_LINES: usize = 10_000;
/// A photograph of some megabytes in base64.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// Off by a thousandth: what another processor or a newer runtime makes of the same weights.
const TOLERANCE: f64 = 1e-3;
/// Of a pod's own sentence so much is told.
const MAX_SENTENCE: usize = 200;

const REQUEST: &str = r#"{"request": {"inputs": […]}, "expected": {"class": 3}}"#;
const IMAGE: &str = r#"{"image": "photo.jpg", "label": "daisy"}"#;
const OUTPUTS: &str = r#"{"outputs": [{"name": "y", "data": [1, 2]}], "tolerance": 0.001}"#;

/// A line that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the golden set {what}")]
pub struct Malformed {
    /// Counted from 1, as editors do.
    pub line: usize,
    /// What is wrong and what to write instead.
    pub what: String,
}

/// A request whose answer is known.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its line, counted from 1.
    pub line: usize,
    /// What is asked.
    pub ask: Ask,
    expected: Expected,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A V2 inference request, as it stands in the file.
    Tensors(String),
    /// A photograph, for the model's pipeline.
    Image(Image),
}

/// A photograph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// It stood in the line.
    Bytes(Vec<u8>),
    /// It stands at this address, relative to the file's.
    At(String),
}

#[derive(Clone, Debug)]
enum Expected {
    Label(String),
    Class {
        classes: Vec<usize>,
        output: Option<String>,
    },
    Outputs {
        outputs: Vec<Output>,
        tolerance: f64,
    },
}

#[derive(Clone, Debug, Deserialize)]
struct Output {
    name: String,
    data: Values,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    request: Option<Box<RawValue>>,
    expected: Option<Box<RawValue>>,
    image: Option<Box<RawValue>>,
    label: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    class: Option<Box<RawValue>>,
    output: Option<Box<RawValue>>,
    outputs: Option<Box<RawValue>>,
    tolerance: Option<Box<RawValue>>,
}

/// Reads a golden set. Empty lines are left out, and counted.
///
/// # Errors
/// When a line is none, or there are none or too many.
pub fn parse(file: &[u8]) -> Result<Vec<Case>, Malformed> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let mut cases = Vec::new();
    for (before, text) in file.split(|byte| *byte == b'\n').enumerate() {
        let line = before + 1;
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if cases.len() == MAX_LINES {
            let what = format!("is one too many: write {MAX_LINES} at most");
            return Err(Malformed { line, what });
        }
        let (ask, expected) = read(text).map_err(|what| Malformed { line, what })?;
        cases.push(Case {
            line,
            ask,
            expected,
        });
    }
    if cases.is_empty() {
        let what = format!("is missing: the file is empty; write one {REQUEST} or {IMAGE} a line");
        return Err(Malformed { line: 1, what });
    }
    Ok(cases)
}

fn read(text: &[u8]) -> Result<(Ask, Expected), String> {
    if text.len() > MAX_LINE_BYTES {
        return Err(format!(
            "has {} bytes: {MAX_LINE_BYTES} at most; put the image beside the file and write its name",
            text.len()
        ));
    }
    let text = std::str::from_utf8(text).map_err(|_| "is no UTF-8".to_owned())?;
    let line: Line = object(text, "is")?;
    match (line.request, line.image) {
        (Some(_), Some(_)) => Err(format!(
            "has both a request and an image: write two lines, {REQUEST} and {IMAGE}"
        )),
        (None, None) => Err(format!("asks for nothing: write {REQUEST} or {IMAGE}")),
        (Some(request), None) => {
            let Some(expected) = line.expected.filter(|_| line.label.is_none()) else {
                return Err(format!(
                    "does not say what the request's answer is: write {REQUEST}, or \"expected\": {OUTPUTS}"
                ));
            };
            if !request.get().starts_with('{') {
                return Err(
                    "has a request that is no object: write a V2 inference request, \
                     {\"inputs\": [{\"name\": …, \"datatype\": …, \"shape\": …, \"data\": …}]}"
                        .to_owned(),
                );
            }
            let expected = wanted(object(expected.get(), "has an \"expected\" that is")?)?;
            Ok((Ask::Tensors(request.get().to_owned()), expected))
        }
        (None, Some(image)) => {
            let label = line.label.filter(|_| line.expected.is_none());
            let label: Option<String> = label.and_then(|label| of(&label));
            let Some(label) = label else {
                return Err(format!("does not say the image's label: write {IMAGE}"));
            };
            let image: Option<String> = of(&image);
            let image = image.as_deref().and_then(picture);
            let image = image.ok_or_else(|| {
                format!(
                    "has an image that is neither an address, which has a dot in it, nor base64: write {IMAGE}"
                )
            })?;
            Ok((Ask::Image(image), Expected::Label(label)))
        }
    }
}

/// An object whose fields are all known. `subject` begins the sentence about what is none.
fn object<'a, T: Deserialize<'a>>(text: &'a str, subject: &str) -> Result<T, String> {
    if !text.starts_with('{') {
        return Err(format!(
            "{subject} no JSON object: write {REQUEST} or {IMAGE}"
        ));
    }
    serde_json::from_str(text).map_err(|error| {
        let at = error.column();
        match error.classify() {
            // Every field is anything, so that only a name can be wrong.
            Category::Data => {
                let name = error.to_string();
                let name = name.split(" at line ").next().unwrap_or_default();
                format!("has a field too many: {name}")
            }
            _ => format!("{subject} no JSON, from its column {at} on: write {REQUEST} or {IMAGE}"),
        }
    })
}

fn of<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn picture(text: &str) -> Option<Image> {
    // Base64 has neither.
    if text.contains(['.', ':']) {
        return Some(Image::At(text.to_owned()));
    }
    let bytes = STANDARD.decode(text).ok()?;
    (!bytes.is_empty()).then_some(Image::Bytes(bytes))
}

fn wanted(wanted: Wanted) -> Result<Expected, String> {
    let Wanted {
        class,
        output,
        outputs,
        tolerance,
    } = wanted;
    match (class, outputs) {
        (Some(class), None) if tolerance.is_none() => {
            let classes = of::<usize>(&class).map(|class| vec![class]);
            let classes = classes.or_else(|| of(&class));
            let classes = classes.filter(|classes: &Vec<usize>| !classes.is_empty());
            let classes = classes.ok_or(
                "has a class that is none: write the index of the largest value, 3, or one for each row, [3, 7]",
            )?;
            let output = output.map(|name| {
                of(&name).ok_or("has an output that is no text: write the name of the output")
            });
            let output = output.transpose()?;
            Ok(Expected::Class { classes, output })
        }
        (None, Some(outputs)) if output.is_none() => {
            let outputs = of::<Vec<Output>>(&outputs).filter(|outputs| !outputs.is_empty());
            let outputs = outputs
                .ok_or_else(|| format!("has outputs that cannot be compared: write {OUTPUTS}"))?;
            let tolerance = tolerance.map_or(Some(TOLERANCE), |raw| of(&raw));
            let tolerance = tolerance.filter(|tolerance| *tolerance >= 0.0);
            let tolerance = tolerance.ok_or(
                "has a tolerance that is none: write a number from 0 on, 0.001 for instance",
            )?;
            Ok(Expected::Outputs { outputs, tolerance })
        }
        _ => Err(format!(
            "has an \"expected\" that is neither classes nor outputs: write {{\"class\": 3}}, with \"output\": \
             \"name\" where the model has several, or {OUTPUTS}"
        )),
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    outputs: Vec<Answered>,
    predictions: Option<Vec<Prediction>>,
}

#[derive(Deserialize)]
struct Answered {
    name: String,
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Prediction {
    label: Option<String>,
}

impl Answered {
    fn values(&self) -> Result<Values, String> {
        let values = self.data.as_deref().and_then(of);
        values.ok_or_else(|| format!("the output {:?} has no values as JSON", self.name))
    }
}

impl Case {
    /// Whether the answer is the expected one.
    ///
    /// # Errors
    /// How it differs, with the line.
    pub fn judge(&self, code: u16, answer: &[u8]) -> Result<(), String> {
        self.differs(code, answer)
            .map_err(|how| format!("line {}: {how}", self.line))
    }

    fn differs(&self, code: u16, answer: &[u8]) -> Result<(), String> {
        if code != 200 {
            return Err(format!("{code}: {}", sentence(answer)));
        }
        let answer: Answer = serde_json::from_slice(answer)
            .map_err(|_| "the answer is no JSON of outputs or predictions".to_owned())?;
        match &self.expected {
            Expected::Label(label) => {
                let Some(predictions) = answer.predictions else {
                    return Err("the model's pipeline answers no labels".to_owned());
                };
                let got = predictions.first().and_then(|first| first.label.as_deref());
                match got {
                    Some(got) if got == label => Ok(()),
                    Some(got) => Err(format!("{:?}, not {label:?}", cut(got))),
                    None => Err(format!("no label, not {label:?}")),
                }
            }
            Expected::Class { classes, output } => {
                let output = match output {
                    Some(name) => find(&answer.outputs, name)?,
                    None => only(&answer.outputs)?,
                };
                let name = &output.name;
                let got = output.values()?.largest(classes.len());
                let got = got.map_err(|why| format!("the output {name:?} has {why}"))?;
                let mut rows = got.iter().zip(classes).enumerate();
                match rows.find(|(_, (got, class))| got != class) {
                    None => Ok(()),
                    Some((_, (got, class))) if classes.len() == 1 => {
                        Err(format!("class {got}, not {class}"))
                    }
                    Some((row, (got, class))) => {
                        Err(format!("class {got} in row {row}, not {class}"))
                    }
                }
            }
            Expected::Outputs { outputs, tolerance } => {
                for expected in outputs {
                    let got = find(&answer.outputs, &expected.name)?;
                    if let Some(how) = got.values()?.differ(&expected.data, *tolerance) {
                        return Err(format!("the output {:?} has {}", expected.name, cut(&how)));
                    }
                }
                Ok(())
            }
        }
    }
}

fn find<'a>(outputs: &'a [Answered], name: &str) -> Result<&'a Answered, String> {
    let found = outputs.iter().find(|output| output.name == name);
    found.ok_or_else(|| format!("there is no output {name:?}; there is {}", names(outputs)))
}

fn only(outputs: &[Answered]) -> Result<&Answered, String> {
    match outputs {
        [only] => Ok(only),
        _ => Err(format!(
            "\"output\" must say which of {} has the classes",
            names(outputs)
        )),
    }
}

fn names(outputs: &[Answered]) -> String {
    let names: Vec<String> = outputs.iter().map(|o| format!("{:?}", o.name)).collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => cut(&names.join(", ")).to_owned(),
    }
}

/// The sentence of an error, as our server and others write it.
fn sentence(answer: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refused {
        error: String,
    }
    match serde_json::from_slice::<Refused>(answer) {
        Ok(refused) => cut(&refused.error).to_owned(),
        Err(_) => "an answer without a sentence".to_owned(),
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_SENTENCE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
