//! The initial RAM disk: cpio archives in the `newc` format, which the kernel unpacks one after the other.

use anyhow::{Context, Result};

/// An archive that is being written.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// File types and permissions, as in `stat`.
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_600;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    /// A folder. Those above it have to be there already.
    pub(super) fn folder(&mut self, path: &str) -> Result<()> {
        self.entry(path, FOLDER, &[])
    }

    /// A file that root may read.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, FILE, content)
    }

    /// A program.
    pub(super) fn program(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, PROGRAM, content)
    }

    /// The whole archive. The kernel takes another one right after it.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{path} is too large for a RAM disk"))?;
        let name = u32::try_from(path.len() + 1)?;
        // inode, mode, uid, gid, links, mtime, size, device (2), device of a device file (2), length of the name,
        // checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// Headers and contents start at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn is_what_the_format_says() {
        let mut archive = Archive::default();
        archive.file("a", b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let file = "070701000000010000818000000000000000000000000100000000000000050000000000000000000000000000000000000002000000\
             00a\0hello\0\0\0";
        assert_eq!(text.strip_prefix(file).and_then(|rest| rest.find("TRAILER!!!\0")), Some(110));
        assert_eq!(text.len() % 4, 0);
    }
}
