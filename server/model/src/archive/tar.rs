//! Tar, POSIX and GNU. Regular files and folders pass; every other kind of entry is refused by name.

use std::{io::Read, rc::Rc};

use tar::EntryType;

use super::{
    Refusal, Stop, Writer,
    meter::{Meter, Metered},
};
use crate::sniff;

/// Unpacks a decompressed tar stream to its end, so that a checksum after it is verified too.
pub(super) fn unpack<'a>(
    mut stream: impl Read,
    meter: &Rc<Meter<'a>>,
    writer: &mut Writer<'a>,
) -> Result<(), Stop> {
    let broken = |e: std::io::Error| Stop::Broken(e.to_string());
    let mut head = Vec::with_capacity(sniff::HEAD);
    stream
        .by_ref()
        .take(sniff::HEAD as u64)
        .read_to_end(&mut head)
        .map_err(broken)?;
    if !sniff::is_tar(&head) {
        return Err(Refusal(
            "is compressed, but what it holds is no tar archive; pack the model with \
             tar czf m.tar.gz -C FOLDER ."
                .to_owned(),
        )
        .into());
    }
    let whole = std::io::Cursor::new(head).chain(stream);
    let mut archive = tar::Archive::new(Metered::new(whole, Rc::clone(meter)));
    meter.expect_headers();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        entry_into(&mut entry, meter, writer)?;
        meter.expect_headers();
    }
    meter.expect_content();
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(broken)?;
    Ok(())
}

fn entry_into<'a, R: Read>(
    entry: &mut tar::Entry<'_, R>,
    meter: &Meter<'a>,
    writer: &mut Writer<'a>,
) -> Result<(), Stop> {
    let raw = entry.path_bytes().into_owned();
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            refuse_pax_sparse(entry)?;
            meter.expect_content();
            // Before POSIX a folder was a file whose name ends in a slash.
            if raw.ends_with(b"/") {
                writer.folder(&raw)
            } else {
                writer.file(&raw, entry)
            }
        }
        EntryType::Directory => writer.folder(&raw),
        EntryType::XGlobalHeader => Ok(()),
        other => {
            let name = String::from_utf8_lossy(&raw);
            Err(Refusal(format!(
                "holds {name:?}, {}; only files and folders are unpacked",
                described(other)
            ))
            .into())
        }
    }
}

/// `tar --sparse` writes maps instead of content; the file would come out wrong.
fn refuse_pax_sparse<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<(), Stop> {
    let broken = |e: std::io::Error| Stop::Broken(e.to_string());
    let Some(extensions) = entry.pax_extensions().map_err(broken)? else {
        return Ok(());
    };
    for extension in extensions {
        if extension
            .map_err(broken)?
            .key_bytes()
            .starts_with(b"GNU.sparse")
        {
            return Err(Refusal("holds a sparse file; pack without --sparse".to_owned()).into());
        }
    }
    Ok(())
}

fn described(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink => "a symbolic link (pack with tar --dereference)",
        EntryType::Link => "a hard link (pack with tar --hard-dereference)",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        EntryType::GNUSparse => "a sparse file (pack without --sparse)",
        _ => "an entry of an unknown kind",
    }
}
