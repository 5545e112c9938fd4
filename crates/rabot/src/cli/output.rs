//! Results: text and JSON on standard output, and files that are whole or not there.

use super::Failure;
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use rabot::{Tensors, npz};
use serde::Serialize;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Cursor, ErrorKind, Seek, Write};
use std::path::Path;

/// Writes text to standard output. That nobody reads it any more is no failure.
///
/// **Errors**: it cannot be written.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a value as JSON to standard output.
///
/// **Errors**: it cannot be written.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)?;
    print(&(text + "\n"))
}

/// Writes a note to standard error.
pub(crate) fn note(text: &str) {
    // Nobody can be told where this fails.
    let _ = writeln!(io::stderr().lock(), "note: {text}");
}

/// A table with these headings; columns whose heading begins with `>` are aligned right.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')).collect::<Vec<_>>());
    for (index, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(index)
            && heading.starts_with('>')
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// What can be written to and gone back in.
pub(crate) trait WriteSeek: Write + Seek {}

impl<T: Write + Seek> WriteSeek for T {}

/// Writes a file: a temporary one beside it first, which takes its name when it is complete. What is no regular
/// file, as `/dev/stdout`, is written directly.
///
/// **Errors**: it cannot be written; then nothing is left behind.
pub(crate) fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut dyn WriteSeek) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot write `{}`: {error}", path.display()));
    let about = |failure: Failure| failure.about(&format!("cannot write `{}`", path.display()));
    let special = fs::metadata(path).is_ok_and(|meta| !meta.is_file());
    if special {
        let mut bytes = Cursor::new(Vec::new());
        fill(&mut bytes).map_err(about)?;
        let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
        return file.write_all(&bytes.into_inner()).and_then(|()| file.flush()).map_err(failed);
    }
    // A link stays a link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".rabot-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder).map_err(failed)?;
    let mut writer = BufWriter::new(file);
    fill(&mut writer).map_err(about)?;
    let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    file.persist(&target).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Writes bytes to a file as [`write_file`] does.
///
/// **Errors**: as [`write_file`].
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_file(path, |writer| Ok(writer.write_all(bytes)?))
}

/// Writes tensors to an npz file as [`write_file`] does.
///
/// **Errors**: as [`write_file`].
pub(crate) fn write_npz(path: &Path, tensors: &Tensors) -> Result<(), Failure> {
    write_file(path, |writer| Ok(npz::write_npz(writer, tensors)?))
}
