//! What a disk holds when the power fails: the bytes of a file up to its last sync, the names of a directory up to its.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::trace::{Call, calls};

/// A file or a directory of this number.
type Node = usize;

/// A disk on which one directory was in use.
#[derive(Default)]
pub struct Disk {
    files: Vec<File>,
    /// Names as programs see them, and as a crash leaves them.
    names: HashMap<PathBuf, Node>,
    durable: HashMap<PathBuf, Node>,
}

#[derive(Default)]
struct File {
    is_directory: bool,
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

impl Disk {
    /// The disk after all calls of the trace (`strace -f -y -xx`), as far as they are about what lies in `root`.
    pub fn after(trace: &str, root: &Path) -> Disk {
        let mut disk = Disk::default();
        for call in calls(trace) {
            if !call.result.starts_with('-') && call.result != "?" {
                disk.take(&call, root);
            }
        }
        disk
    }

    fn take(&mut self, call: &Call, root: &Path) {
        let strings = strings(&call.arguments);
        let path = |at: usize| strings.get(at).map(|bytes| path(bytes)).filter(|path| path.starts_with(root));
        let open = || Some(self::path(&unescaped(call.descriptor()))).filter(|path| path.starts_with(root));
        match &*call.name {
            "openat" if call.arguments.contains("O_CREAT") => {
                let Some(path) = path(0) else { return };
                let node = self.node(path, false);
                if call.arguments.contains("O_TRUNC") {
                    self.files[node].bytes.clear();
                }
            }
            "mkdir" => {
                if let Some(path) = path(0) {
                    self.node(path, true);
                }
            }
            "write" => {
                // Files written so are written once, from the front to the back.
                if let (Some(&node), Some(bytes)) = (open().and_then(|path| self.names.get(&path)), strings.first()) {
                    self.files[node].bytes.extend_from_slice(bytes);
                }
            }
            "pwrite64" => {
                let (Some(&node), Some(bytes)) = (open().and_then(|path| self.names.get(&path)), strings.first())
                else {
                    return;
                };
                let at = last_number(&call.arguments);
                let file = &mut self.files[node].bytes;
                file.resize(file.len().max(at + bytes.len()), 0);
                file[at..at + bytes.len()].copy_from_slice(bytes);
            }
            "ftruncate" => {
                if let Some(&node) = open().and_then(|path| self.names.get(&path)) {
                    self.files[node].bytes.resize(last_number(&call.arguments), 0);
                }
            }
            "rename" => {
                if let (Some(from), Some(to)) = (path(0), path(1))
                    && let Some(node) = self.names.remove(&from)
                {
                    self.names.insert(to, node);
                }
            }
            "unlink" => {
                if let Some(path) = path(0) {
                    self.names.remove(&path);
                }
            }
            "fsync" | "fdatasync" => {
                let Some(path) = open() else { return };
                if path == root || self.names.get(&path).is_some_and(|&node| self.files[node].is_directory) {
                    self.durable.retain(|name, _| name.parent() != Some(&path));
                    let inside = self.names.iter().filter(|(name, _)| name.parent() == Some(&path));
                    self.durable.extend(inside.map(|(name, &node)| (name.clone(), node)));
                } else if let Some(&node) = self.names.get(&path) {
                    self.files[node].durable = self.files[node].bytes.clone();
                }
            }
            "openat" => {}
            // A change this model knows nothing of would make its answer worthless.
            other => assert!(open().is_none() && path(0).is_none(), "{other} is not modelled: {call:?}"),
        }
    }

    fn node(&mut self, path: PathBuf, is_directory: bool) -> Node {
        let files = &mut self.files;
        *self.names.entry(path).or_insert_with(|| {
            files.push(File { is_directory, ..File::default() });
            files.len() - 1
        })
    }

    /// Writes what the crash has left of the directory.
    pub fn write(&self, root: &Path) {
        fs::create_dir_all(root).expect("a directory");
        let mut names: Vec<_> = self.durable.iter().collect();
        // Directories before what lies in them.
        names.sort();
        for (path, &node) in names {
            let file = &self.files[node];
            let made = if file.is_directory { fs::create_dir(path) } else { private(path, &file.durable) };
            // In a directory whose own name is gone nothing is found.
            if let Err(error) = made {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}: {error}", path.display());
            }
        }
    }
}

/// Writes a file that its owner alone may read, as keys demand.
fn private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// The strings among the arguments of a call; in hexadecimal none holds a quote.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    arguments.split('"').skip(1).step_by(2).map(unescaped).collect()
}

/// `\x41\x42` is `AB`.
fn unescaped(text: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).expect("strace writes bytes in hexadecimal");
    text.split("\\x").skip(1).map(byte).collect()
}

/// The last argument: an offset or a length.
fn last_number(arguments: &str) -> usize {
    let arguments = arguments.rsplit_once(')').map_or(arguments, |(arguments, _)| arguments);
    let last = arguments.rsplit(", ").next().unwrap_or_default();
    last.parse().unwrap_or_else(|_| panic!("{last:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    #[test]
    fn a_crash_keeps_what_was_synced_under_names_that_were_synced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("data");
        let name = |name: &str| hex(root.join(name).to_str().expect("UTF-8"));
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let here = hex(root.to_str().expect("UTF-8"));
        let trace = [
            format!("1 openat(AT_FDCWD</>, \"{a}\", O_RDWR|O_CREAT, 0600) = 3<{a}>"),
            format!("1 pwrite64(3<{a}>, \"{}\", 4, 2) = 4", hex("sync")),
            format!("1 fdatasync(3<{a}>) = 0"),
            format!("1 pwrite64(3<{a}>, \"{}\", 4, 0) = 4", hex("lost")),
            format!("1 fsync(4<{here}>) = 0"),
            format!("1 openat(AT_FDCWD</>, \"{b}\", O_WRONLY|O_CREAT, 0600) = 5<{b}>"),
            format!("1 write(5<{b}>, \"{}\", 1) = 1", hex("b")),
            format!("1 fsync(5<{b}> <unfinished ...>"),
            "1 <... fsync resumed>) = 0".to_owned(),
            format!("1 rename(\"{b}\", \"{c}\") = 0"),
        ];
        Disk::after(&trace.join("\n"), &root).write(&root);
        assert_eq!(fs::read(root.join("a")).expect("kept"), b"\0\0sync");
        assert!(!root.join("b").exists() && !root.join("c").exists(), "neither name was synced");
    }
}
