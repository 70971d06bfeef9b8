//! Programs of this workspace, as their users start them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Http, Process};

/// How long a program may take to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The built program `name`, beside the running test: `target/<profile>/name`.
///
/// # Errors
/// When it is not built; the text says how to build it.
pub fn binary(name: &str) -> io::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.ancestors().find(|dir| dir.join(name).is_file()).map(Path::to_path_buf);
    folder.map(|dir| dir.join(name)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("{name} is not built: run `cargo xtask test --only build`"),
        )
    })
}

/// What a program is started with.
#[derive(Clone, Debug, Default)]
pub struct ProgramOptions {
    /// Arguments after those that every start has (free ports and a ready file).
    pub args: Vec<String>,
    /// Environment on top of ours.
    pub env: Vec<(String, String)>,
    /// Command and arguments to run it under, such as `strace -f`.
    pub under: Vec<String>,
}

/// A `brisq-server` or `brisq up` that runs on free ports.
#[derive(Debug)]
pub struct Program {
    process: Process,
    binary: PathBuf,
    options: ProgramOptions,
    folder: TempDir,
    /// Address of the public API.
    pub listen: String,
    /// Address of metrics and profiles.
    pub admin: String,
    /// Process id as the program says it, also when it runs under another one.
    pub pid: u32,
}

impl Program {
    /// Starts `binary` and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the text ends with what it wrote.
    pub fn start(binary: &Path, options: ProgramOptions) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (process, ready) = launch(binary, &options, folder.path())?;
        let Ready { listen, admin, pid } = ready;
        Ok(Self { process, binary: binary.to_path_buf(), options, folder, listen, admin, pid })
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again as it was, on new ports.
    ///
    /// # Errors
    /// As [`Program::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.process.kill9();
        let (process, ready) = launch(&self.binary, &self.options, self.folder.path())?;
        (self.process, self.listen, self.admin, self.pid) = (process, ready.listen, ready.admin, ready.pid);
        Ok(())
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it wrote to standard output and error so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A connection to its public API.
    ///
    /// # Errors
    /// When it does not accept one.
    pub fn http(&self) -> io::Result<Http> {
        Http::connect(&self.listen)
    }
}

impl Drop for Program {
    /// Under another command the process that is ours to kill is that one, and what it ran would live on.
    fn drop(&mut self) {
        if !self.options.under.is_empty() {
            // It may have ended by itself: then there is nothing to kill.
            let _ =
                Command::new("kill").args(["-KILL", &self.pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

struct Ready {
    listen: String,
    admin: String,
    pid: u32,
}

fn launch(binary: &Path, options: &ProgramOptions, folder: &Path) -> io::Result<(Process, Ready)> {
    let ready_file = folder.join("ready.json");
    if ready_file.exists() {
        std::fs::remove_file(&ready_file)?;
    }
    let log = File::options().create(true).append(true).open(folder.join("log"))?;
    let mut command = match options.under.split_first() {
        Some((under, args)) => {
            let mut command = Command::new(under);
            command.args(args).arg(binary);
            command
        }
        None => Command::new(binary),
    };
    command
        .args(&options.args)
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--ready-file"])
        .arg(&ready_file)
        .envs(options.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let mut process = Process::spawn(&mut command)?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Ok(text) = std::fs::read_to_string(&ready_file) {
            return parse_ready(&text).map(|ready| (process, ready));
        }
        if Instant::now() > deadline || !process.is_running() {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            return Err(io::Error::other(format!(
                "{} is not ready; it wrote:\n{}",
                binary.display(),
                tail.join("\n")
            )));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn parse_ready(text: &str) -> io::Result<Ready> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    let address = |name: &str| value.get(name).and_then(|v| v.as_str()).map(str::to_owned);
    let pid = value.get("pid").and_then(serde_json::Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
    match (address("listen"), address("admin"), pid) {
        (Some(listen), Some(admin), Some(pid)) => Ok(Ready { listen, admin, pid }),
        _ => Err(io::Error::other(format!("not a ready file: {text}"))),
    }
}
