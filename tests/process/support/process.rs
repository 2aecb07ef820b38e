//! The real binary, as a child process.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

const BINARY: &str = env!("CARGO_BIN_EXE_causeway");

/// What a command that ended left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CAUSEWAY_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the binary to its end.
pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Ended {
    let output = command(BINARY).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code().expect("no signal ended it"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Lines of a stream, as they come.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn follow(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let sink = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                sink.0.lock().unwrap().push(line);
            }
        });
        lines
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    fn first(&self) -> Option<String> {
        self.0.lock().unwrap().first().cloned()
    }
}

/// A running gateway; killed when dropped.
pub(crate) struct Process {
    child: Child,
    out: Lines,
    err: Lines,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Process {
    /// `causeway dev` over a folder, on free ports.
    pub(crate) async fn dev(routes: &Path, more: &[&str]) -> Self {
        let mut command = command(BINARY);
        command.arg("dev").arg(routes).args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).args(more);
        Self::start(command).await
    }

    /// `causeway run` over a folder, on free ports, with `token` as the callback token.
    pub(crate) async fn run(routes: &Path, more: &[&str]) -> Self {
        let mut command = command(BINARY);
        Self::production(&mut command, routes, more);
        Self::start(command).await
    }

    /// The same with few open files.
    pub(crate) async fn run_with_files(files: u32, routes: &Path, more: &[&str]) -> Self {
        let mut command = command("sh");
        command.arg("-c").arg(format!("ulimit -n {files}; exec \"$0\" \"$@\"")).arg(BINARY);
        Self::production(&mut command, routes, more);
        Self::start(command).await
    }

    fn production(command: &mut Command, routes: &Path, more: &[&str]) {
        command.arg("run").arg(routes).args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--callback-token", "token"]).args(more);
    }

    /// `causeway run`, not waited for: it may not be able to serve yet.
    pub(crate) fn launch(routes: &Path, more: &[&str]) -> Self {
        let mut command = command(BINARY);
        Self::production(&mut command, routes, more);
        Self::spawn(command)
    }

    async fn start(command: Command) -> Self {
        let mut process = Self::spawn(command);
        process.listens().await;
        process
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = Lines::follow(child.stdout.take().unwrap());
        let err = Lines::follow(child.stderr.take().unwrap());
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { child, out, err, public: nowhere, admin: nowhere }
    }

    /// Waits until it serves, and notes where.
    pub(crate) async fn listens(&mut self) {
        let mut ended = false;
        eventually("the first line", || {
            ended = self.child.try_wait().unwrap().is_some();
            ended || self.out.first().is_some()
        })
        .await;
        let Some(line) = self.out.first() else { panic!("it ended at once: {}", self.err.text()) };
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("listening"), "{line}");
        let mut address = |name: &str| {
            let word = words.next().and_then(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {name} in: {line}"))
        };
        self.public = address("public");
        self.admin = address("admin");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; the exit code.
    pub(crate) async fn exit(&mut self) -> i32 {
        let mut status = None;
        eventually("the end of the process", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.and_then(|status| status.code()).expect("no signal ended it")
    }

    /// Ends it the clean way.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.exit().await, 0, "{}", self.log());
    }

    /// Standard output so far.
    pub(crate) fn output(&self) -> String {
        self.out.text()
    }

    /// Standard error so far.
    pub(crate) fn log(&self) -> String {
        self.err.text()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}", self.err.text());
        }
    }
}
