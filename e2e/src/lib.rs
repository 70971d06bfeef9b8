//! Tests of whole programs: the built server and CLI on a real disk, a real Redis, real sockets and real signals.
//!
//! The tests are in `tests/`, one file for each stage of `cargo xtask test`; here is what they share.
#![forbid(unsafe_code)]

use std::io;

use brisq_testkit::{Program, ProgramOptions, Redis, RedisOptions, binary};
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
