use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Process;

/// How long Redis may take to answer after its start, its append-only file read.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How a Redis is started.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `always`, `everysec` or `no`.
    pub appendfsync: &'static str,
    /// Further arguments, such as `--maxmemory 10mb`.
    pub args: Vec<String>,
    /// Environment on top of ours.
    pub env: Vec<(String, String)>,
}

impl Default for RedisOptions {
    /// Every answer is on disk.
    fn default() -> Self {
        Self { appendfsync: "always", args: Vec::new(), env: Vec::new() }
    }
}

/// A real Redis in a temporary folder, on a free port that it keeps over restarts.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    options: RedisOptions,
    folder: TempDir,
    port: u16,
}

impl Redis {
    /// Starts `redis-server`, or what `BRISQ_REDIS_SERVER` names, and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed or does not answer.
    pub fn start(options: RedisOptions) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        // Another program may take the port between the two: then the start fails, and says so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = launch(&options, folder.path(), port)?;
        let mut redis = Self { process, options, folder, port };
        redis.wait_until_it_answers()?;
        Ok(redis)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL for a user with a password.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends it a signal by its name, such as `STOP` or `CONT`.
    ///
    /// # Errors
    /// When the signal could not be sent.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        self.process.signal(name)
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again on the same port with the same data.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn restart(&mut self) -> io::Result<()> {
        self.process.kill9();
        self.process = launch(&self.options, self.folder.path(), self.port)?;
        self.wait_until_it_answers()
    }

    /// Copies what lies on disk to a folder.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn keep_aside(&self, to: &Path) -> io::Result<()> {
        copy(&self.folder.path().join("appendonlydir"), to)
    }

    /// Kills it and starts it again with what was kept aside: an older volume.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn come_back_as(&mut self, kept: &Path) -> io::Result<()> {
        self.process.kill9();
        let folder = self.folder.path().join("appendonlydir");
        std::fs::remove_dir_all(&folder)?;
        copy(kept, &folder)?;
        self.restart()
    }

    /// How long its append-only file is, which has what came since the start or the last rewrite.
    ///
    /// # Errors
    /// When it has none.
    pub fn log_bytes(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(self.log_file()?)?.len())
    }

    /// Makes the append-only file of a killed Redis as short as it was: what came later never reached the disk.
    ///
    /// # Errors
    /// When it cannot be changed.
    pub fn cut_log(&self, bytes: u64) -> io::Result<()> {
        std::fs::File::options().write(true).open(self.log_file()?)?.set_len(bytes)
    }

    fn log_file(&self) -> io::Result<PathBuf> {
        for entry in std::fs::read_dir(self.folder.path().join("appendonlydir"))? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(".incr.aof") {
                return Ok(path);
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "Redis has no append-only file"))
    }

    /// Sends one command and returns the first line of its answer.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn command(&self, line: &str) -> io::Result<String> {
        use std::io::{BufRead, Write};
        let mut stream = self.connect()?;
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        let mut answer = String::new();
        io::BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    /// Sends `INFO` with a section; the raw answer.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn info(&self, section: &str) -> io::Result<String> {
        use std::io::{Read, Write};
        let mut stream = self.connect()?;
        stream.write_all(format!("INFO {section}\r\nQUIT\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Calls of functions that it ran or refused.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn function_calls(&self) -> io::Result<u64> {
        let text = self.info("commandstats")?;
        let fields = text
            .lines()
            .filter(|line| line.starts_with("cmdstat_fcall"))
            .flat_map(|line| line.split([':', ',']));
        let counts = fields.filter_map(|field| field.split_once('='));
        let counts = counts.filter(|(name, _)| ["calls", "rejected_calls"].contains(name));
        Ok(counts.filter_map(|(_, count)| count.parse::<u64>().ok()).sum())
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(stream)
    }

    fn wait_until_it_answers(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.command("PING").ok().as_deref() != Some("+PONG") {
            if Instant::now() > deadline || !self.process.is_running() {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("redis-server does not answer; it wrote:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Names another server than the `redis-server` of the path: another version of Redis, or Valkey.
const SERVER: &str = "BRISQ_REDIS_SERVER";

fn launch(options: &RedisOptions, folder: &Path, port: u16) -> io::Result<Process> {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log"))?;
    let mut command = Command::new(std::env::var_os(SERVER).unwrap_or_else(|| "redis-server".into()));
    command
        .args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            options.appendfsync,
        ])
        .args(["--port", &port.to_string(), "--dir"])
        .arg(folder)
        .args(&options.args)
        .envs(options.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Process::spawn(&mut command).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("redis-server cannot be started: {error}; install the package redis-server"),
        )
    })
}
