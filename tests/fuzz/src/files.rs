//! Files: models, archives, configurations, images.
//!
//! What must hold: a refusal has a sentence of one line and a reason that blames the file; an archive writes
//! nothing beside its place, and no more than its limit; an image is as many floats as were asked for.

use std::{fs, path::Path, sync::OnceLock};

use ortolan_model::{
    Channels, Failure, ImageInput, Layout, Reason, Request, Resize, config_pbtxt, obtain,
};
use ortolan_server::{onnx as outline, pipeline::image as pixels, startup::Startup};

use tokio::runtime::{Builder, Runtime};

use crate::world::{TOKENIZER, scratch, write};

/// For all that comes out of an archive.
const LIMIT: u64 = 4 << 20;

/// What a file may be refused for.
const REFUSED: [Reason; 4] = [
    Reason::ArchiveRefused,
    Reason::InvalidConfig,
    Reason::InvalidModel,
    Reason::ModelTooLarge,
];

/// A JPEG, PNG or WebP file; the first byte chooses what is made of it.
pub fn image(bytes: &[u8]) -> bool {
    let Some((choice, body)) = bytes.split_first() else {
        return false;
    };
    let wanted = ImageInput {
        width: 5,
        height: 3,
        resize: [Resize::Crop, Resize::Fit, Resize::Stretch][usize::from(choice % 3)],
        short_side: (*choice >= 128).then_some(7),
        channels: [Channels::Rgb, Channels::Bgr][usize::from(choice & 1)],
        layout: [Layout::Nchw, Layout::Nhwc][usize::from(choice >> 1 & 1)],
        mean: vec![127.0; 3],
        std: vec![64.0; 3],
    };
    match pixels::tensor(body, None, &wanted) {
        Ok(floats) => {
            assert_eq!(floats.len(), 45);
            assert!(floats.iter().all(|float| (-2.0..=2.1).contains(float)));
            true
        }
        Err(pixels::ImageError::Resize(what)) => panic!("not the client's fault: {what}"),
        Err(error) => {
            says_something(&error.to_string());
            false
        }
    }
}

/// An archive; the first byte chooses its name.
pub fn archive(bytes: &[u8]) -> bool {
    let Some((choice, content)) = bytes.split_first() else {
        return false;
    };
    let name = ["m.tar", "m.tar.gz", "m.tar.zst", "m.zip"][usize::from(choice % 4)];
    let dir = scratch();
    write(dir.path(), name, content);
    let taken = obtained(dir.path(), &dir.path().join(name));
    let mut beside: Vec<_> = entries(dir.path());
    beside.retain(|entry| entry != "cache" && entry != name);
    assert!(beside.is_empty(), "written beside its place: {beside:?}");
    let size = size(&dir.path().join("cache"));
    assert!(size <= LIMIT + (1 << 20), "{size} bytes were written");
    taken
}

/// The outline of a model and what is counted in it.
pub fn onnx(bytes: &[u8]) -> bool {
    let dir = scratch();
    write(dir.path(), "m.onnx", bytes);
    let path = dir.path().join("m.onnx");
    let counted = outline::census::census(&path);
    if let Err(error) = &counted {
        assert!(!matches!(error, outline::NotOnnx::Io(_)), "{error}");
        says_something(&error.to_string());
    }
    match outline::outline(&path) {
        Ok(_) => counted.is_ok(),
        Err(error) => {
            assert!(!matches!(error, outline::NotOnnx::Io(_)), "{error}");
            says_something(&error.to_string());
            false
        }
    }
}

/// A `config.pbtxt`.
pub fn pbtxt(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let read = config_pbtxt("m/config.pbtxt", text);
    blames_the_file(read.as_ref().err(), &[Reason::InvalidConfig]);
    read.is_ok()
}

/// A `model.yaml` beside a model, labels and a tokenizer.
pub fn yaml(bytes: &[u8]) -> bool {
    let dir = scratch();
    write(dir.path(), "model.yaml", bytes);
    write(dir.path(), "model.onnx", b"\x08\x08");
    write(dir.path(), "labels.txt", b"red\ngreen\nblue\n");
    write(dir.path(), "tokenizer.json", TOKENIZER.as_bytes());
    obtained(dir.path(), &dir.path().join("model.onnx"))
}

fn obtained(folder: &Path, file: &Path) -> bool {
    let uri = file.display().to_string().parse().expect("a path is a URI");
    let mut request = Request::new(uri, folder.join("cache"));
    request.max_model_bytes = LIMIT;
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime")
    });
    let read = runtime.block_on(obtain(&request, &Startup::default()));
    blames_the_file(read.as_ref().err(), &REFUSED);
    read.is_ok()
}

fn blames_the_file(failure: Option<&Failure>, reasons: &[Reason]) {
    if let Some(failure) = failure {
        assert!(reasons.contains(&failure.reason), "{failure}");
        says_something(&failure.message);
    }
}

fn says_something(sentence: &str) {
    assert!(
        !sentence.trim().is_empty() && sentence.len() < 100_000,
        "{sentence:?}"
    );
}

fn entries(folder: &Path) -> Vec<String> {
    let listed = fs::read_dir(folder).expect("a folder of ours");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    };
    listed.map(name).collect()
}

fn size(path: &Path) -> u64 {
    let Ok(about) = fs::symlink_metadata(path) else {
        return 0;
    };
    assert!(!about.is_symlink(), "a link was made: {}", path.display());
    if !about.is_dir() {
        return about.len();
    }
    entries(path)
        .iter()
        .map(|name| size(&path.join(name)))
        .sum()
}
