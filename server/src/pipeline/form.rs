//! What a body is: told by its Content-Type, or by its first bytes where that says nothing.

use super::{
    InputError, Reader,
    image::{self, Kind},
};

/// What `curl --data-binary` says of any file, and what says nothing: the bytes decide then.
const SAYS_NOTHING: [&str; 4] = [
    "",
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    "binary/octet-stream",
];

/// How a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A photograph, of this kind if the client says the truth.
    Image(Option<Kind>),
    /// One text.
    Text,
    /// `{"inputs": …}`, or the value of `inputs` alone.
    Json,
    /// A table; the first line names its columns.
    Csv {
        /// Whether it does.
        header: bool,
    },
    /// Bytes.
    Bytes,
    /// JSON where it begins like it, else what this pipeline's plain form is.
    Untold,
}

/// The form that a Content-Type claims, where the pipeline reads it.
pub fn of(reader: &Reader, content_type: Option<&str>) -> Result<Form, InputError> {
    let mut parts = content_type.unwrap_or_default().split(';');
    let media = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let says_nothing = SAYS_NOTHING.contains(&media.as_str());
    let parameter = |wanted: &str| {
        let found = parts.clone().find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case(wanted).then_some(value)
        });
        found.map(|value| value.trim().trim_matches('"').to_ascii_lowercase())
    };
    let form = match (reader, media.as_str()) {
        // Whatever it is: its bytes are what counts.
        (Reader::Bytes(_), _) => return Ok(Form::Bytes),
        (Reader::Image(_), _) if says_nothing => return Ok(Form::Image(None)),
        (Reader::Image(_), media) => {
            let kind = Kind::of_media_type(media);
            kind.map(|kind| Form::Image(Some(kind)))
        }
        (Reader::Text(_) | Reader::Rows(_), "application/json") => Some(Form::Json),
        (Reader::Text(_), "text/plain") => Some(Form::Text),
        (Reader::Rows(_), "text/csv") => Some(Form::Csv {
            header: parameter("header").as_deref() != Some("absent"),
        }),
        (Reader::Text(_) | Reader::Rows(_), _) if says_nothing => Some(Form::Untold),
        _ => None,
    };
    let Some(form) = form else {
        return Err(InputError::Kind(format!(
            "the content type {media:?} is not read here; send {}",
            reader.kinds()
        )));
    };
    if let Some(charset) = parameter("charset")
        && !matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii")
        && !matches!(form, Form::Image(_))
    {
        return Err(InputError::Kind(format!(
            "the charset {charset:?} is not read here; send UTF-8"
        )));
    }
    Ok(form)
}

impl Form {
    /// The form once the body is there.
    #[must_use]
    pub fn told_by(self, reader: &Reader, body: &[u8]) -> Self {
        if self != Self::Untold {
            return self;
        }
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
        match (first, reader) {
            (Some(b'{' | b'['), _) => Self::Json,
            (_, Reader::Rows(_)) => Self::Csv { header: true },
            (_, Reader::Image(_)) => Self::Image(None),
            (_, Reader::Bytes(_)) => Self::Bytes,
            (_, Reader::Text(_)) => Self::Text,
        }
    }
}

impl Reader {
    /// What to send, in a sentence.
    #[must_use]
    pub const fn kinds(&self) -> &'static str {
        match self {
            Self::Image(_) => image::KINDS,
            Self::Text(_) => "text/plain or application/json",
            Self::Bytes(_) => "application/octet-stream",
            Self::Rows(_) => "application/json or text/csv",
        }
    }
}

impl Reader {
    /// What `POST /predict/{model}` takes, for people.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        match self {
            Self::Image(_) => "a photograph: curl --data-binary @photo.jpg",
            Self::Text(_) => "texts: {\"inputs\": \"text\"} or {\"inputs\": [\"text\", ...]}",
            Self::Bytes(_) => "a file: curl --data-binary @file",
            Self::Rows(_) => "rows: {\"inputs\": [[...], ...]}, objects by column, or CSV",
        }
    }

    /// What to give curl besides the address: a line that works as it stands, but for a file's name.
    #[must_use]
    pub fn example(&self) -> String {
        match self {
            Self::Image(_) => "--data-binary @photo.jpg".to_owned(),
            Self::Bytes(_) => "--data-binary @file".to_owned(),
            Self::Text(_) => "-d '{\"inputs\": [\"a text\", \"another\"]}'".to_owned(),
            Self::Rows(rows) => format!("-d '{{\"inputs\": [{}]}}'", rows.example()),
        }
    }
}
