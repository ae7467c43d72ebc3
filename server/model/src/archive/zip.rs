//! Zip: stored and deflated files. What it says of sizes is not believed; bytes are counted.

use std::{
    fs::File,
    io::{BufReader, Read},
};

use ::zip::{ZipArchive, result::ZipError};

use super::{Refusal, Stop, Writer};
use crate::tree::MAX_FILES;

const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

pub(super) fn unpack(reader: BufReader<File>, writer: &mut Writer<'_>) -> Result<(), Stop> {
    let mut archive = ZipArchive::new(reader).map_err(stop)?;
    if archive.len() > MAX_FILES {
        return Err(Refusal(format!("holds more than {MAX_FILES} entries")).into());
    }
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(stop)?;
        let raw = entry.name_raw().to_vec();
        let name = String::from_utf8_lossy(&raw).into_owned();
        if entry.encrypted() {
            return Err(
                Refusal(format!("holds {name:?} encrypted; pack without a password")).into(),
            );
        }
        // Zips made on Windows or by libraries carry no Unix mode.
        match entry.unix_mode().map_or(0, |m| m & TYPE_MASK) {
            0 | REGULAR | FOLDER => {}
            _ => {
                return Err(Refusal(format!(
                    "holds {name:?}, a link or a device; only files and folders are unpacked \
                     (pack without zip -y)"
                ))
                .into());
            }
        }
        if entry.is_dir() {
            writer.folder(&raw)?;
        } else {
            let mut content = writer.metered(entry.by_ref());
            writer.file(&raw, &mut content)?;
        }
    }
    Ok(())
}

fn stop(error: ZipError) -> Stop {
    match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => {
            Refusal("is encrypted; pack without a password".to_owned()).into()
        }
        ZipError::CompressionMethodNotSupported(method) => Refusal(format!(
            "uses compression method {method}; pack with deflate, zip's default, or store"
        ))
        .into(),
        ZipError::UnsupportedArchive(what) => {
            Refusal(format!("uses what is not supported: {what}")).into()
        }
        other => Stop::Broken(other.to_string()),
    }
}
