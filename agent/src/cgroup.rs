//! Folders and files of the cgroup tree.
//!
//! Everything is opened relative to a folder that is open already, one component at a time and never through a symbolic
//! link; names of files are constants. So no text from outside can lead out of the tree.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, XattrFlags},
    io::Errno,
};

use crate::layout::Name;

/// More than any file here has; what is beyond is not read.
const LONGEST: usize = 256 * 1024;
/// Bytes of a note.
const LONGEST_NOTE: usize = 4096;
/// The extended attribute that holds the note. The kernel takes `user.*` on cgroup v2 since 5.7.
const NOTE: &str = "user.catamaran.before";

/// What holding a container to its quota needs of its cgroup. Tests have a kernel of their own behind it.
pub trait CgroupFiles {
    /// The text of a file; `None` when there is no such file.
    ///
    /// # Errors
    /// As the kernel says.
    fn text(&self, file: &'static str) -> io::Result<Option<String>>;
    /// Writes a text in one call, as the kernel asks.
    ///
    /// # Errors
    /// As the kernel says.
    fn write(&self, file: &'static str, text: &str) -> io::Result<()>;
    /// What was noted at the cgroup; empty without a note. It lasts as long as the cgroup, not as long as this process.
    ///
    /// # Errors
    /// When cgroups take no notes.
    fn note(&self) -> io::Result<String>;
    /// Notes a text, or removes the note when it is empty.
    ///
    /// # Errors
    /// When cgroups take no notes.
    fn set_note(&self, text: &str) -> io::Result<()>;
}

/// An open folder.
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// An open file, to be read again and again.
#[derive(Debug)]
pub struct Kept(OwnedFd);

/// An open file, and what its text came to: most containers rest, and what says the same need not be parsed again.
#[derive(Debug)]
pub struct Parsed<T> {
    file: Kept,
    last: Option<(Vec<u8>, T)>,
}

/// A place for the text of one file after the other.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Folder {
    /// The root of a tree, by a path that the operator of the node gave.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// A folder in this one; `None` when there is none of that name, or it is a symbolic link.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn folder(&self, name: &Name) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(absent(fs::openat(&self.0, name.as_str(), flags, Mode::empty()))?.map(Self))
    }

    /// A folder further down.
    ///
    /// # Errors
    /// When one on the way cannot be opened.
    pub fn descend(&self, path: &[Name]) -> io::Result<Option<Self>> {
        let Some((first, rest)) = path.split_first() else { return Ok(None) };
        let mut found = self.folder(first)?;
        for name in rest {
            let Some(folder) = found else { return Ok(None) };
            found = folder.folder(name)?;
        }
        Ok(found)
    }

    /// The names of the folders in this one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn folders(&self) -> io::Result<Vec<Name>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().ok().and_then(Name::new) else { continue };
            let folder = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => {
                    let stat = fs::statat(&self.0, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
                    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
                }
                _ => false,
            };
            if folder {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// A file of this folder, to be read; `None` when there is none of that name.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn file(&self, name: &'static str) -> io::Result<Option<Kept>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(absent(fs::openat(&self.0, name, flags, Mode::empty()))?.map(Kept))
    }
}

impl CgroupFiles for Folder {
    fn text(&self, file: &'static str) -> io::Result<Option<String>> {
        let Some(kept) = self.file(file)? else { return Ok(None) };
        let mut buffer = Buffer::default();
        Ok(Some(kept.read(&mut buffer)?.to_owned()))
    }

    fn write(&self, file: &'static str, text: &str) -> io::Result<()> {
        // Without O_NONBLOCK a write to memory.high returns once memory was reclaimed, which may take seconds. Kernels
        // that do not know it there (before 6.16) pass over it.
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = fs::openat(&self.0, file, flags, Mode::empty())?;
        let written = rustix::io::write(&opened, text.as_bytes())?;
        if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn note(&self) -> io::Result<String> {
        let mut note = vec![0_u8; LONGEST_NOTE];
        let length = match fs::fgetxattr(&self.0, NOTE, note.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::NODATA) => 0,
            Err(error) => return Err(error.into()),
        };
        note.truncate(length);
        String::from_utf8(note).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn set_note(&self, text: &str) -> io::Result<()> {
        if !text.is_empty() {
            return Ok(fs::fsetxattr(&self.0, NOTE, text.as_bytes(), XattrFlags::empty())?);
        }
        match fs::fremovexattr(&self.0, NOTE) {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Kept {
    /// The file's text from its beginning: one call to the kernel, unless it is very long.
    ///
    /// # Errors
    /// As the kernel says; `ENODEV` once the cgroup is gone.
    pub fn read<'a>(&self, buffer: &'a mut Buffer) -> io::Result<&'a str> {
        text(self.bytes(buffer)?)
    }

    fn bytes<'a>(&self, buffer: &'a mut Buffer) -> io::Result<&'a [u8]> {
        let Buffer(bytes) = buffer;
        if bytes.is_empty() {
            bytes.resize(8 * 1024, 0);
        }
        let mut length = 0_usize;
        loop {
            let room = bytes.get_mut(length..).unwrap_or_default();
            let offset = u64::try_from(length).unwrap_or(u64::MAX);
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(&self.0, &mut *room, offset))?;
            length = length.saturating_add(read);
            if read == 0 || length < bytes.len() {
                break;
            }
            if length >= LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            bytes.resize(length.saturating_mul(2), 0);
        }
        Ok(bytes.get(..length).unwrap_or_default())
    }
}

impl<T: Copy> Parsed<T> {
    /// What the file says now, by `parse`.
    ///
    /// # Errors
    /// As [`Kept::read`].
    pub fn read(&mut self, buffer: &mut Buffer, parse: impl FnOnce(&str) -> T) -> io::Result<T> {
        let bytes = self.file.bytes(buffer)?;
        match &self.last {
            Some((known, value)) if known == bytes => Ok(*value),
            Some(_) | None => {
                let value = parse(text(bytes)?);
                let (known, last) = self.last.get_or_insert_with(|| (Vec::with_capacity(bytes.len()), value));
                known.clear();
                known.extend_from_slice(bytes);
                *last = value;
                Ok(value)
            }
        }
    }
}

impl<T> From<Kept> for Parsed<T> {
    fn from(file: Kept) -> Self {
        Self { file, last: None }
    }
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What is not there, is no folder or is a symbolic link is absent.
fn absent<T>(outcome: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
