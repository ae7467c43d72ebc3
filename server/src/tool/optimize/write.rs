//! Writes the optimised model beside its final place, then moves it there whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ort::{environment::Environment, session::Session};

use super::{Level, Options, refused};
use crate::{
    onnx::Outline,
    tool::{Refusal, internal, text},
};

/// Protobuf cannot write 2 GiB or more into one file; what is not weights needs a little room, too.
const ONE_FILE: u64 = 1_900_000_000;
/// Smaller tensors stay in the model's file.
const EXTERNAL_FROM: u64 = 1024;

/// Where the output goes; checked before any work is done.
#[derive(Debug)]
pub(super) struct Place {
    output: PathBuf,
    /// The weights' file, when they have one of their own.
    data: Option<PathBuf>,
}

impl Place {
    pub(super) fn check(options: &Options, model: &Path, weights: u64) -> Result<Self, Refusal> {
        let output = &options.output;
        let shown = output.display();
        let refuse = |why: &str| Err(Refusal::Output(format!("-o {shown}: {why}")));
        let Some(name) = output.file_name() else {
            return refuse("name a file to write");
        };
        if output.is_dir() {
            return refuse("this is a directory; name a file to write");
        }
        if !parent(output).is_dir() {
            return refuse("there is no such directory");
        }
        let same = |a: &Path, b: &Path| match (fs::canonicalize(a), fs::canonicalize(b)) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        if same(output, model) {
            return refuse("this is the model itself; name another file");
        }
        let data = (options.external_data || weights > ONE_FILE).then(|| {
            let mut data = name.to_owned();
            data.push(".data");
            output.with_file_name(data)
        });
        let taken = [Some(output), data.as_ref()]
            .into_iter()
            .flatten()
            .find(|file| file.exists());
        match taken {
            Some(file) if !options.force => Err(Refusal::Output(format!(
                "{} exists; overwrite it with --force",
                file.display()
            ))),
            _ => Ok(Self {
                output: output.clone(),
                data,
            }),
        }
    }

    /// A directory beside the output to write into.
    pub(super) fn open(self) -> Result<Partial, Refusal> {
        let name = self.output.file_name().unwrap_or_default();
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let dir = parent(&self.output).join(hidden);
        fs::create_dir(&dir).map_err(|error| unwritable(&dir, &error))?;
        Ok(Partial {
            model: dir.join(name),
            dir,
            place: self,
        })
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::Output(format!("{} cannot be written: {error}", path.display()))
}

/// A model on its way; what is not published is removed.
#[derive(Debug)]
pub(super) struct Partial {
    /// The optimised model, not yet in its place.
    pub(super) model: PathBuf,
    dir: PathBuf,
    place: Place,
}

impl Partial {
    /// Moves the files to their places, the weights first: the model never names what is not there.
    pub(super) fn publish(self) -> Result<PathBuf, Refusal> {
        let move_to = |place: &Path| {
            let from = self.dir.join(place.file_name().unwrap_or_default());
            fs::rename(from, place).map_err(|error| unwritable(place, &error))
        };
        if let Some(data) = &self.place.data {
            // A model without a tensor of some size has no file of weights.
            if self.dir.join(data.file_name().unwrap_or_default()).exists() {
                move_to(data)?;
            }
        }
        move_to(&self.place.output)?;
        Ok(self.place.output.clone())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// Lets ONNX Runtime optimise `model` and write what it made.
pub(super) fn optimise(
    environment: &Environment,
    model: &Path,
    outline: &Outline,
    level: Level,
    partial: &Partial,
) -> Result<(), Refusal> {
    let build = || -> ort::Result<Session> {
        let mut builder = Session::builder(environment)?
            .with_optimization_level(level.runtimes())?
            .with_optimized_model_path(&partial.model)?
            .with_intra_threads(1)?;
        if let Some(data) = partial
            .place
            .data
            .as_ref()
            .and_then(|data| data.file_name())
        {
            builder = builder
                .with_config_entry(
                    "session.optimized_model_external_initializers_file_name",
                    data.to_string_lossy(),
                )?
                .with_config_entry(
                    "session.optimized_model_external_initializers_min_size_in_bytes",
                    EXTERNAL_FROM.to_string(),
                )?;
        }
        builder.commit_from_file(model)
    };
    build().map_err(|error| refused(model, Some(outline), &error))?;
    match fs::metadata(&partial.model) {
        Ok(written) if written.len() > 0 => Ok(()),
        _ => Err(internal(format!(
            "ONNX Runtime wrote no optimised model of {}",
            text::bytes(fs::metadata(model).map_or(0, |metadata| metadata.len()))
        ))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Options {
        let words = [&["optimize"], words].concat();
        Cli::try_parse_from(words).unwrap().options
    }

    #[test]
    fn nothing_is_overwritten_unasked_and_the_model_itself_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for name in ["m.onnx", "taken.onnx", "half.onnx.data"] {
            fs::write(path(name), "x").unwrap();
        }
        let check = |output: &str, more: &[&str], weights: u64| {
            let model = path("m.onnx");
            let options = options(&[&[model.as_str(), "-o", output], more].concat());
            Place::check(&options, Path::new(&model), weights)
                .map_err(|refusal| refusal.to_string())
        };
        assert!(
            check(&path("taken.onnx"), &[], 0)
                .unwrap_err()
                .contains("--force")
        );
        assert!(check(&path("taken.onnx"), &["--force"], 0).is_ok());
        assert!(
            check(&path("m.onnx"), &["--force"], 0)
                .unwrap_err()
                .contains("itself")
        );
        assert!(check(&path("half.onnx"), &[], 0).is_ok());
        let large = check(&path("half.onnx"), &[], ONE_FILE + 1).unwrap_err();
        assert!(large.contains("half.onnx.data exists"), "{large}");
        let asked = check(&path("half.onnx"), &["--external-data"], 0).unwrap_err();
        assert!(asked.contains("half.onnx.data exists"), "{asked}");
        assert!(
            check(&path("no/x.onnx"), &[], 0)
                .unwrap_err()
                .contains("no such directory")
        );
        let this = dir.path().display().to_string();
        assert!(check(&this, &[], 0).unwrap_err().contains("directory"));
    }

    #[test]
    fn what_was_not_published_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out.onnx");
        let place = || Place {
            output: output.clone(),
            data: Some(dir.path().join("out.onnx.data")),
        };
        let partial = place().open().unwrap();
        fs::write(&partial.model, "model").unwrap();
        drop(partial);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let partial = place().open().unwrap();
        fs::write(&partial.model, "model").unwrap();
        fs::write(partial.dir.join("out.onnx.data"), "weights").unwrap();
        assert_eq!(partial.publish().unwrap(), output);
        assert_eq!(fs::read(&output).unwrap(), b"model");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
