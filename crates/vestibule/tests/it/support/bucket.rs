//! A bucket of an S3-compatible service that none of us wrote.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use super::python::python;

/// A service with one bucket; it ends when dropped.
pub struct Bucket {
    child: Child,
    /// None once it is dropped: the service ends with its standard input.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
    home: TempDir,
}

impl Bucket {
    pub const NAME: &str = "pictures";

    /// Starts the service and makes the bucket.
    pub fn start() -> Bucket {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/object_store/server.py");
        let mut command = Command::new(python());
        command.arg("-B").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the service starts");
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().expect("a standard output"));
        let mut port = String::new();
        stdout.read_line(&mut port).expect("a port");
        let port = port.trim().parse().expect("a port");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let bucket = Bucket { child, stdin, stdout, address, home: tempfile::tempdir().expect("a directory") };
        bucket.ask("PUT", "");
        bucket
    }

    /// A directory that lives as long as it.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The service stops answering; what it has stays.
    pub fn pause(&mut self) {
        self.tell("stop");
    }

    /// It answers again.
    pub fn resume(&mut self) {
        self.tell("start");
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.stdin.as_mut().expect("it runs"), "{word}").expect("it listens");
        let mut done = String::new();
        self.stdout.read_line(&mut done).expect("an answer");
        assert_eq!(done.trim(), word);
    }

    /// The names of all objects.
    pub fn keys(&self) -> Vec<String> {
        let listing = self.ask("GET", "?list-type=2");
        let keys = listing.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        keys.map(|(key, _)| key.to_owned()).collect()
    }

    /// Removes the bucket with all that is in it.
    pub fn remove(&self) {
        for key in self.keys() {
            self.ask("DELETE", &format!("/{key}"));
        }
        self.ask("DELETE", "");
    }

    /// The service asks for a signature and does not look at it.
    fn ask(&self, method: &str, path: &str) -> String {
        let (mut stream, name) = (TcpStream::connect(self.address).expect("a connection"), Self::NAME);
        let head = format!(
            "{method} /{name}{path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\
             authorization: AWS4-HMAC-SHA256 Credential=test/20261121/us-east-1/s3/aws4_request, SignedHeaders=host, \
             Signature=0\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{method} {path}: {answer}");
        answer
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
