//! Servers as child processes: pinned, waited for, measured, ended with their owner.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Which processor is whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pins {
    /// The servers' processor and the driver's; `None` when the two sides could not be kept apart.
    pair: Option<(usize, usize)>,
    /// Whether both sides come before other work of the machine.
    first: bool,
}

/// How far both sides are put before other work, where that is allowed.
const NICENESS: i32 = -10;

/// Which side a process is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What is measured.
    Server,
    /// What measures, and back-ends.
    Driver,
}

impl Pins {
    /// Puts the driver on the second of its processors and keeps the first for servers; both before other work.
    pub fn set() -> Self {
        let mine = Pid::from_raw(0);
        let allowed = sched_getaffinity(mine).unwrap_or_default();
        let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
        let pair = cpus.next().zip(cpus.next());
        // Inherited by everything started from here on.
        let first = rustix::process::setpriority_process(None, NICENESS).is_ok();
        let pins = Self { pair, first };
        if pins.enter(Side::Driver).is_err() { Self { pair: None, first } } else { pins }
    }

    /// Says what was done, for the report.
    pub fn describe(self) -> String {
        let place = match self.pair {
            Some((server, driver)) => {
                format!("servers on processor {server}, driver and back-ends on processor {driver}")
            }
            None => "NOT PINNED: fewer than two processors, or not allowed".into(),
        };
        if self.first { format!("{place}, all at niceness {NICENESS}") } else { place }
    }

    fn enter(self, side: Side) -> Result<()> {
        let Some((server, driver)) = self.pair else { return Ok(()) };
        let mut set = CpuSet::new();
        set.set(match side {
            Side::Server => server,
            Side::Driver => driver,
        })?;
        sched_setaffinity(Pid::from_raw(0), &set).context("cannot pin")
    }

    /// Starts a command on a side: a child inherits the processor of the thread that starts it, from its first
    /// instruction on, so that it also counts its processors right.
    fn spawn(self, side: Side, command: &mut Command) -> Result<Child> {
        self.enter(side)?;
        let child = command.spawn();
        self.enter(Side::Driver)?;
        child.with_context(|| format!("cannot start {}", command.get_program().display()))
    }
}

/// A child process; it ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: PathBuf,
    talk: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Process {
    /// Starts a server whose output goes to `{folder}/{name}.out` and `.err`.
    pub fn serve(
        pins: Pins,
        side: Side,
        command: &mut Command,
        folder: &Path,
        name: &str,
    ) -> Result<Self> {
        let output = folder.join(format!("{name}.out"));
        let errors = folder.join(format!("{name}.err"));
        command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(File::create(errors)?);
        let child = pins.spawn(side, command)?;
        Ok(Self { child, output, talk: None })
    }

    /// Starts a helper that takes orders on its standard input and answers on its output, line by line.
    pub fn talk(pins: Pins, side: Side, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pins.spawn(side, command)?;
        let pipes = child.stdin.take().zip(child.stdout.take()).context("no pipes")?;
        let talk = Some((pipes.0, BufReader::new(pipes.1)));
        Ok(Self { child, output: PathBuf::new(), talk })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Its process id and those of its children.
    pub fn family(&self) -> Result<Vec<i32>> {
        let pid = self.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let children = children.split_whitespace().map(str::parse);
        Ok(std::iter::once(Ok(pid)).chain(children).collect::<Result<_, _>>()?)
    }

    /// Waits for the first line of its output.
    pub fn first_line(&mut self, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            let text = std::fs::read_to_string(&self.output)?;
            if let Some((line, _)) = text.split_once('\n') {
                return Ok(line.to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status} before it listened: {}", self.complaint());
            }
            if Instant::now() > deadline {
                bail!("it did not say where it listens within {patience:?}: {}", self.complaint());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of what it wrote to standard error.
    pub fn complaint(&self) -> String {
        let text = std::fs::read_to_string(self.output.with_extension("err")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(6).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Whether it is still there.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("it ended with {status}: {}", self.complaint()),
            None => Ok(()),
        }
    }

    /// Gives a helper an order and waits for its answer.
    pub fn ask(&mut self, order: &str) -> Result<String> {
        let (input, output) = self.talk.as_mut().context("this process takes no orders")?;
        writeln!(input, "{order}")?;
        input.flush()?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // First politely, so that a master takes its workers along.
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).ok();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A command that starts the driver itself.
pub fn myself() -> Result<Command> {
    Ok(Command::new(std::env::current_exe().context("cannot find the driver itself")?))
}
