//! Memory-mapped files as shared bytes: the one place outside code generation and run time that needs `unsafe`.

use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Files smaller than this are read: a mapping costs a page table entry and faults for no gain.
const MAP_FROM_BYTES: u64 = 1 << 20;

/// The contents of a regular file; those of a large one are mapped, not read. Slices of the result share it.
///
/// **Errors**: the file cannot be opened or mapped, or is no regular file (a directory, a pipe, a device).
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    // Before opening: to open a pipe blocks until somebody writes to it.
    check_regular(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    check_regular(&metadata)?;
    if metadata.len() < MAP_FROM_BYTES {
        let mut contents = Vec::new();
        file.take(MAP_FROM_BYTES).read_to_end(&mut contents)?;
        return Ok(Bytes::from(contents));
    }
    // SAFETY: the mapping is private and read-only, and `Bytes` never hands out a mutable view of it. What stays
    // unchecked is that another process may change or truncate the file while it is mapped: changed bytes are then
    // read as they are (every reader of the bytes treats them as untrusted, and none keeps a checked invariant about
    // them), and reading past a truncated end raises SIGBUS, which ends the process and corrupts nothing.
    let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file)? };
    Ok(Bytes::from_owner(map))
}

fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_files_give_their_contents() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0usize, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 7] {
            let contents: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
            let path = dir.path().join(len.to_string());
            fs::write(&path, &contents).unwrap();
            assert_eq!(map_file(&path).unwrap(), contents, "{len} bytes");
        }
    }

    #[test]
    fn directories_and_devices_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(map_file(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(map_file(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(map_file(&dir.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
