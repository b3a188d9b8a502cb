//! What strace writes, read.

/// One system call of a trace, by the numbers of the lines on which it began and ended.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    pub arguments: String,
    pub result: String,
    pub begun: usize,
    pub ended: usize,
}

impl Call {
    /// What `-y` says of its first argument: the path of a file, the kind of a socket.
    pub fn descriptor(&self) -> &str {
        let Some((_, rest)) = self.arguments.split_once('<') else { return "" };
        rest.split_once('>').map_or("", |(path, _)| path)
    }

    /// Whether it moved bytes of the connection with this descriptor.
    pub fn is_on(&self, descriptor: &str) -> bool {
        self.descriptor() == descriptor
    }

    pub fn reads(&self) -> bool {
        ["read", "readv", "recvfrom", "recvmsg"].contains(&&*self.name)
    }

    pub fn writes(&self) -> bool {
        ["write", "writev", "sendto", "sendmsg"].contains(&&*self.name)
    }

    /// Whether it made a file of the journal durable.
    pub fn syncs_journal(&self) -> bool {
        self.syncs() && self.result == "0" && self.descriptor().contains("/data/journal/")
    }

    /// Whether it asked for something to be made durable.
    pub fn syncs(&self) -> bool {
        self.name == "fsync" || self.name == "fdatasync"
    }
}

/// Reads a trace of `strace -f -y`, joining calls that are shown in two parts.
pub fn calls(trace: &str) -> Vec<Call> {
    let mut begun: Vec<(&str, usize, String)> = Vec::new();
    let mut calls = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        let (started, whole) = if let Some(first) = text.strip_suffix(" <unfinished ...>") {
            begun.push((thread, number, first.to_owned()));
            continue;
        } else if let Some(rest) = text.strip_prefix("<... ") {
            let Some((_, rest)) = rest.split_once(" resumed>") else { continue };
            let Some(at) = begun.iter().position(|(of, ..)| *of == thread) else { continue };
            let (_, started, first) = begun.swap_remove(at);
            (started, first + rest)
        } else {
            (number, text.to_owned())
        };
        let (Some((name, rest)), Some((_, result))) = (whole.split_once('('), whole.rsplit_once(" = ")) else {
            continue;
        };
        let result = result.split_whitespace().next().unwrap_or_default().to_owned();
        calls.push(Call { name: name.to_owned(), arguments: rest.to_owned(), result, begun: started, ended: number });
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_with_calls_in_two_parts() {
        let trace = "7 recvfrom(9<socket:[1]>, \"2\\26\", 8, 0, NULL, NULL) = 2\n\
                     8 fdatasync(4</x/data/journal/a.db-wal> <unfinished ...>\n\
                     7 sendto(9<socket:[1]>, \"@\\2\\0\\1\", 4, 0, NULL, 0 <unfinished ...>\n\
                     8 <... fdatasync resumed>) = 0\n\
                     7 <... sendto resumed>) = 4\n\
                     7 +++ exited with 0 +++\n";
        let read = calls(trace);
        let spans: Vec<_> = read.iter().map(|call| (&*call.name, call.begun, call.ended)).collect();
        assert_eq!(spans, [("recvfrom", 0, 0), ("fdatasync", 1, 3), ("sendto", 2, 4)]);
        assert!(read[1].syncs_journal() && read[0].reads() && read[2].writes());
        assert!(read[0].is_on("socket:[1]") && !read[1].is_on("socket:[1]"));
    }
}
