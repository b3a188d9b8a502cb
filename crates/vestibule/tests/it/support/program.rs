//! Programs that run beside the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A program that neither says anything nor ends for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a program ended, and what it printed.
#[derive(Debug)]
pub struct Done {
    /// Its exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The one JSON document it printed.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The same program, which has to end with this status.
    #[track_caller]
    pub fn expect(self, code: i32) -> Done {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// A running program; killed when dropped.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    patience: Duration,
}

impl Program {
    /// Starts it, without standard input.
    pub fn of(mut command: Command) -> Program {
        Program::spawn(command.stdin(Stdio::null()))
    }

    /// Starts it with this on its standard input.
    pub fn fed(mut command: Command, text: &str) -> Program {
        let mut program = Program::spawn(command.stdin(Stdio::piped()));
        let mut stdin = program.child.stdin.take().expect("a standard input");
        stdin.write_all(text.as_bytes()).expect("it reads its standard input");
        program
    }

    fn spawn(command: &mut Command) -> Program {
        let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => {
                let name = command.get_program().to_string_lossy().into_owned();
                panic!("{name} cannot be started: {error}. `cargo xtask test` installs what the tests need.")
            }
        };
        // Both are read beside it: a full pipe would stop the program, and a silent one the test.
        let stdout = BufReader::new(child.stdout.take().expect("a standard output"));
        let (sender, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut stderr = child.stderr.take().expect("a standard error");
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Program { child, lines, stderr: Some(stderr), patience: PATIENCE }
    }

    /// One that may say nothing for so long.
    pub fn with_patience(mut self, patience: Duration) -> Program {
        self.patience = patience;
        self
    }

    /// The next line of its standard output; `None` when it has closed it.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(self.patience) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                self.kill();
                let stderr = self.said_on_stderr();
                panic!("nothing was said for {:?}; on standard error: {stderr}", self.patience)
            }
        }
    }

    /// Reads its standard output up to the line with this text in it.
    #[track_caller]
    pub fn line_with(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Some(line) = self.line() {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        let stderr = self.said_on_stderr();
        panic!("it ended without saying {text:?}; it said {seen:?}, and on standard error {stderr}");
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
    }

    /// Asks it to end as Ctrl-C does.
    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
    }

    /// Has it stand still.
    pub fn stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("it runs");
    }

    /// Has it go on.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("it runs");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Done {
        let mut stdout = String::new();
        while let Some(line) = self.line() {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        let status = wait(&mut self.child);
        Done { code: status.code(), stdout, stderr: self.said_on_stderr() }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn said_on_stderr(&mut self) -> String {
        self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> Done {
    let mut command = Command::new(program);
    command.args(arguments);
    Program::of(command).finish()
}

/// Waits for the end of a process that is to end by itself.
#[track_caller]
pub fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the process did not end within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
