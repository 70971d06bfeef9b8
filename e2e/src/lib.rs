//! Tests of whole programs: the built server and CLI on a real disk, a real Redis, real sockets and real signals.
//!
//! The tests are in `tests/`, one file for each stage of `cargo xtask test`; here is what they share.
#![forbid(unsafe_code)]

pub mod history;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use brisq_testkit::{Http, Process, Program, ProgramOptions, Redis, RedisOptions, binary};
use tempfile::TempDir;

/// A server on one of its stores, all in temporary folders.
#[derive(Debug)]
pub struct Server {
    /// The server.
    pub program: Program,
    /// The Redis it works on, if it does.
    pub redis: Option<Redis>,
    _data: TempDir,
}

/// Which store a server works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// A folder, fsync before the answer.
    Embedded,
    /// Redis with `appendfsync always`.
    Redis,
}

impl Store {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Embedded, Self::Redis];
}

impl Server {
    /// Starts `brisq-server` with further arguments.
    ///
    /// # Errors
    /// When it or its Redis does not become ready.
    pub fn start(store: Store, args: &[&str]) -> io::Result<Self> {
        Self::start_under(&[], store, args)
    }

    /// Starts `brisq-server` under another command, such as `strace -f`.
    ///
    /// # Errors
    /// When it or its Redis does not become ready.
    pub fn start_under(under: &[&str], store: Store, args: &[&str]) -> io::Result<Self> {
        let data = tempfile::tempdir()?;
        let redis = match store {
            Store::Embedded => None,
            Store::Redis => Some(Redis::start(RedisOptions::default())?),
        };
        let mut all: Vec<String> = match &redis {
            Some(redis) => vec!["--redis".into(), redis.url()],
            None => vec!["--data".into(), data.path().display().to_string()],
        };
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let under = under.iter().map(|arg| (*arg).to_owned()).collect();
        let options = ProgramOptions { args: all, under, ..ProgramOptions::default() };
        let program = Program::start(&binary("brisq-server")?, options)?;
        Ok(Self { program, redis, _data: data })
    }
}

/// Whether `cargo xtask nightly` asks for all rows of a table, or for more rounds.
#[must_use]
pub fn is_night() -> bool {
    std::env::var_os("BRISQ_NIGHTLY").is_some()
}

/// Files in memory. A disk that stalls by itself is a fault besides the one that a test makes.
const MEMORY: &str = "/dev/shm";

/// `brisq up` in a temporary folder, in memory where the machine has such a place.
#[derive(Debug)]
pub struct Up {
    /// The program.
    pub program: Program,
    data: TempDir,
}

impl Up {
    /// Starts `brisq` (the one that takes faults, if `faults`) from this manifest, under another command.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(under: Vec<String>, faults: bool, manifest: &str) -> io::Result<Self> {
        let memory = Path::new(MEMORY);
        let data = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        let file = data.path().join("queue.yaml");
        std::fs::write(&file, manifest)?;
        let folder = data.path().join("data");
        let args = ["up", "-f", &file.display().to_string(), "--data", &folder.display().to_string()];
        let args = args.map(str::to_owned).into();
        let options = ProgramOptions { args, under, ..ProgramOptions::default() };
        let program = Program::start(&binary(if faults { "brisq-faults" } else { "brisq" })?, options)?;
        Ok(Self { program, data })
    }

    /// Writes another manifest over the one that it was started from.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn change(&self, manifest: &str) -> io::Result<()> {
        let aside = self.data.path().join("queue.yaml.new");
        std::fs::write(&aside, manifest)?;
        std::fs::rename(aside, self.data.path().join("queue.yaml"))
    }

    /// Folders of whole captures, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn captures(&self) -> io::Result<Vec<PathBuf>> {
        let mut captures = Vec::new();
        for date in folders(&self.data.path().join("data/captures"))? {
            captures
                .extend(folders(&date)?.into_iter().filter(|folder| folder.join("manifest.json").is_file()));
        }
        captures.sort();
        Ok(captures)
    }
}

/// `brisq load` with these arguments, until it is dropped.
///
/// # Errors
/// When it cannot be started.
pub fn load(program: &Program, args: &[&str]) -> io::Result<Process> {
    let url = format!("http://{}", program.listen);
    let mut command = Command::new(binary("brisq")?);
    command.args(["load", "--url", &url, "--duration", "10m"]).args(args);
    Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Clients that take a listener aside and keep it: it has 64 places and 8 for probes.
const CROWD: usize = 90;

/// What a listener does while clients that never finish their heads have all its places.
#[derive(Debug)]
pub struct Crowded {
    /// Status of a probe.
    pub probe: u16,
    /// Status of anything else.
    pub other: u16,
    /// First line that the first of them is told.
    pub told: String,
    /// After how long.
    pub after: Duration,
}

/// Crowds the listener at `address`, and asks it for `/healthz` and for `other`.
///
/// # Errors
/// When it does not answer.
pub fn crowd(address: &str, other: &str) -> io::Result<Crowded> {
    let began = Instant::now();
    let mut heads = Vec::new();
    for _ in 0..CROWD {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // One that found no place may be closed already.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc");
        heads.push(stream);
    }
    let status = |path: &str| Http::connect(address)?.call("GET", path, "").map(|answer| answer.status);
    let (probe, other) = (status("/healthz")?, status(other)?);
    let mut told = Vec::new();
    if let Some(first) = heads.first_mut() {
        first.read_to_end(&mut told)?;
    }
    let told = String::from_utf8_lossy(&told).lines().next().unwrap_or_default().to_owned();
    Ok(Crowded { probe, other, told, after: began.elapsed() })
}

fn folders(parent: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(parent) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
