//! Memory-mapped files as shared bytes: the one place outside code generation and run time that needs `unsafe`.

use bytes::Bytes;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::{Mutex, PoisonError};

/// Where files are mapped: address and length. [`release`] may touch nothing else.
static MAPPINGS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Files smaller than this are read: a mapping costs a page table entry and faults for no gain.
const MAP_FROM_BYTES: u64 = 1 << 20;

/// The contents of a regular file; those of a large one are mapped, not read. Slices of the result share it.
///
/// **Errors**: the file cannot be opened or mapped, or is no regular file (a directory, a pipe, a device).
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    // Before opening: to open a pipe blocks until somebody writes to it.
    check_regular(&fs::metadata(path)?)?;
    map_open(File::open(path)?)
}

/// As [`map_file`], of a file that is open.
///
/// **Errors**: the file cannot be mapped, or is no regular file.
pub fn map_open(file: File) -> io::Result<Bytes> {
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
    Ok(Bytes::from_owner(Mapping::new(map)))
}

/// Opens a file below a folder without following a link: neither as the file nor as a folder on the way. Each step is
/// taken from the folder that is open already, so nothing can be swapped between a look and the opening. A pipe or
/// device is opened without waiting and without becoming the terminal; [`map_open`] refuses it.
///
/// **Errors**: the path is empty, absolute or has `..`; something on it is a link or absent.
pub fn open_below(folder: &Path, path: &Path) -> io::Result<File> {
    let refused = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text);
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(CString::new(name.as_bytes())?),
            Component::CurDir => {}
            _ => return Err(refused("the path leads out of the folder")),
        }
    }
    let Some(last) = names.pop() else { return Err(refused("the path is empty")) };
    let mut at = File::open(folder)?;
    for name in &names {
        at = open_at(&at, name, libc::O_DIRECTORY)?;
    }
    open_at(&at, &last, libc::O_NONBLOCK | libc::O_NOCTTY)
}

fn open_at(folder: &File, name: &CStr, flags: libc::c_int) -> io::Result<File> {
    let flags = flags | libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: the name is a C string and the descriptor is open, both for the whole call.
    let descriptor = unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), flags) };
    if descriptor < 0 {
        let error = io::Error::last_os_error();
        // ELOOP says that the last part is a link; for a folder the system says ENOTDIR of the link.
        return Err(match error.raw_os_error() {
            Some(libc::ELOOP) => io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link"),
            Some(libc::ENOTDIR) => io::Error::new(
                io::ErrorKind::InvalidInput,
                "a part of its path is a symbolic link or no folder",
            ),
            _ => error,
        });
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// A mapping that is in [`MAPPINGS`] as long as it lives.
struct Mapping(memmap2::Mmap);

impl Mapping {
    fn new(map: memmap2::Mmap) -> Self {
        let entry = (map.as_ptr() as usize, map.len());
        MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        Mapping(map)
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let entry = (self.0.as_ptr() as usize, self.0.len());
        let mut mappings = MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
        mappings.retain(|other| *other != entry);
    }
}

/// Tells the system that mapped bytes will hardly be read again, so that they take no memory. They stay readable:
/// reading them brings them back from the file. Bytes that are not mapped are left alone.
pub fn release(bytes: &[u8]) {
    let mappings = MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let (start, end) = (bytes.as_ptr() as usize, bytes.as_ptr() as usize + bytes.len());
    if !mappings.iter().any(|&(at, len)| at <= start && end <= at + len) {
        return;
    }
    // SAFETY: no argument, no memory involved.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Some(page) = usize::try_from(page).ok().filter(|page| page.is_power_of_two()) else { return };
    let (first, last) = (start.next_multiple_of(page), end / page * page);
    if first < last {
        // SAFETY: the pages lie within a mapping that `map_file` made and that cannot end while the lock is held. It is
        // a private mapping of a file that nobody writes to through it, so dropped pages are read from the file again.
        // A failure only means that the memory stays in use.
        unsafe { libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_DONTNEED) };
    }
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
    fn released_bytes_are_still_there_and_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let contents: Vec<u8> = (0..3usize << 20).map(|i| (i % 253) as u8).collect();
        let path = dir.path().join("large");
        fs::write(&path, &contents).unwrap();
        let mapped = map_file(&path).unwrap();
        release(&mapped[100..2 << 20]);
        assert_eq!(mapped, contents);
        release(&contents);
        assert_eq!(contents[4096], (4096 % 253) as u8);
    }

    #[test]
    fn files_below_a_folder_are_opened_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::write(folder.join("sub/data"), "data").unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
        link("../secret", "link");
        link("sub", "linked");
        let read = |path: &str| map_open(open_below(&folder, Path::new(path))?);
        assert_eq!(read("sub/data").unwrap(), "data");
        assert_eq!(read("./sub/./data").unwrap(), "data");
        for path in
            ["", ".", "..", "../secret", "sub/../../secret", "link", "linked/data", "/etc/passwd", "sub"]
        {
            assert_eq!(read(path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
        assert_eq!(read("absent").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn directories_and_devices_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(map_file(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(map_file(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(map_file(&dir.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
