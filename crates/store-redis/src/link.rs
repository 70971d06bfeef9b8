//! The connection to Redis, renewed by ourselves: a Redis that became a replica, that forgot our password or that loads its
//! data answers politely for ever on a connection that is never broken, while another one has its address.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue, Pipeline, RedisError, Value};
use tokio::sync::watch;

use crate::connect::{CONNECT_TIMEOUT, ConnectError, connection, is_wrong_password};
use crate::library::Library;
use crate::said::Said;

/// Failures in a row of whatever kind after which the connection is given up.
const FAILURES_MAX: u32 = 5;
/// Shortest time from one try to connect to the next.
const RENEW_PAUSE: Duration = Duration::from_millis(200);
/// Answers of one that cannot do what it is asked, though another at its address may: nothing has run.
const NOT_THE_ONE: [&str; 7] =
    ["READONLY", "MASTERDOWN", "LOADING", "NOAUTH", "WRONGPASS", "CLUSTERDOWN", "MOVED"];
/// Answers of a library that works: no sign of a bad connection.
const ANSWERS: [&str; 4] = ["OOM", "UNKNOWNQUEUE", "NEWER", "NOPERM"];

/// A connection, and which one it is.
#[derive(Clone)]
struct Current {
    generation: u64,
    since: Instant,
    connection: MultiplexedConnection,
}

/// The last try to connect, and why it failed.
type LastTry = Option<(Instant, RedisError)>;

/// One connection for all calls.
pub(crate) struct Link {
    client: Client,
    library: Library,
    current: Mutex<Option<Current>>,
    failures: Mutex<u32>,
    connecting: tokio::sync::Mutex<LastTry>,
    generation: watch::Sender<u64>,
    said: Said,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("generation", &*self.generation.borrow()).finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn new(client: Client, library: Library) -> Self {
        Self {
            client,
            library,
            current: Mutex::new(None),
            failures: Mutex::new(0),
            connecting: tokio::sync::Mutex::new(None),
            generation: watch::Sender::new(0),
            said: Said::default(),
        }
    }

    /// Tells of each new connection.
    pub(crate) fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Number of the present connection.
    pub(crate) fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The present connection, or a new one. Who comes while one is made waits for it.
    pub(crate) async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        self.current().await.map(|current| current.connection)
    }

    async fn current(&self) -> Result<Current, RedisError> {
        if let Some(current) = self.current.lock().clone() {
            return Ok(current);
        }
        let mut last = self.connecting.lock().await;
        if let Some(current) = self.current.lock().clone() {
            return Ok(current);
        }
        if let Some((at, error)) = &*last
            && at.elapsed() < RENEW_PAUSE
        {
            return Err(error.clone());
        }
        match tokio::time::timeout(CONNECT_TIMEOUT, connection(&self.client)).await {
            Ok(Ok(connection)) => {
                *last = None;
                let generation = *self.generation.borrow() + 1;
                let current = Current { generation, since: Instant::now(), connection };
                *self.current.lock() = Some(current.clone());
                *self.failures.lock() = 0;
                self.generation.send_replace(generation);
                Ok(current)
            }
            failed => {
                let timed_out = || std::io::Error::from(std::io::ErrorKind::TimedOut).into();
                let error =
                    failed.map_or_else(|_| timed_out(), |answer| answer.err().unwrap_or_else(timed_out));
                *last = Some((Instant::now(), error.clone()));
                self.tell(&error);
                Err(error)
            }
        }
    }

    /// Gives the connection up, unless it is quite new: the next call makes another, and resolves the name anew. Whether that
    /// is so now, for somebody else may have given it up before.
    fn renew(&self, generation: u64) -> bool {
        let mut current = self.current.lock();
        current.take_if(|now| now.generation == generation && now.since.elapsed() >= RENEW_PAUSE);
        current.as_ref().is_none_or(|now| now.generation != generation)
    }

    /// Tells what is wrong with a Redis that was reached before; who connects first tells it himself.
    fn tell(&self, error: &RedisError) {
        if self.generation() == 0 {
            return;
        }
        let cause = ConnectError::from(error.clone()).to_string();
        if self.said.is_news(&cause) {
            tracing::warn!(error = cause, "Redis cannot be worked with; trying again");
        }
    }

    /// Makes a call, on a new connection where the present one is not the right one any more. A call that failed otherwise may
    /// have run, and is the caller's to repeat.
    async fn run(&self, request: Request<'_>) -> Result<Value, RedisError> {
        let mut repeated = false;
        loop {
            let Current { generation, mut connection, .. } = self.current().await?;
            let error = match request.send(&mut connection).await {
                Ok(answer) => {
                    *self.failures.lock() = 0;
                    if self.said.is_over() {
                        tracing::info!("Redis can be worked with again");
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let code = error.code().unwrap_or_default();
            if ANSWERS.contains(&code) || is_unknown_function(&error) {
                return Err(error);
            }
            self.tell(&error);
            let failures = {
                let mut failures = self.failures.lock();
                *failures += 1;
                *failures
            };
            let nothing_ran = NOT_THE_ONE.contains(&code) || is_wrong_password(&error);
            let broken = error.is_io_error() || error.is_unrecoverable_error();
            let renewed = (nothing_ran || broken || failures >= FAILURES_MAX) && self.renew(generation);
            if !(nothing_ran && renewed) || std::mem::replace(&mut repeated, true) {
                return Err(error);
            }
        }
    }

    /// One plain command.
    pub(crate) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        Ok(T::from_redis_value(self.run(Request::One(command)).await?)?)
    }

    /// One function of the library.
    pub(crate) async fn call(&self, command: &Cmd) -> Result<Value, RedisError> {
        self.with_library(Request::One(command)).await
    }

    /// Several functions of the library in one round trip.
    pub(crate) async fn calls(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let answers = self.with_library(Request::Many(pipeline)).await?;
        Ok(Vec::from_redis_value(answers)?)
    }

    /// A function as a command, to which its arguments are added.
    pub(crate) fn function<'k>(&self, name: &str, keys: impl ExactSizeIterator<Item = &'k str>) -> Cmd {
        let mut command = redis::cmd("FCALL");
        command.arg(self.library.function(name)).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }

    /// A Redis that was flushed or replaced has no library: it is loaded when that shows.
    async fn with_library(&self, request: Request<'_>) -> Result<Value, RedisError> {
        match self.run(request).await {
            Err(error) if is_unknown_function(&error) => {
                self.load().await?;
                self.run(request).await
            }
            answer => answer,
        }
    }

    pub(crate) async fn load(&self) -> Result<(), RedisError> {
        let mut command = redis::cmd("FUNCTION");
        command.arg("LOAD").arg("REPLACE").arg(self.library.text());
        self.run(Request::One(&command)).await.map(|_| ())
    }
}

/// What goes out in one round trip.
#[derive(Clone, Copy)]
enum Request<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline),
}

impl Request<'_> {
    async fn send(self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        match self {
            Self::One(command) => command.query_async(connection).await,
            Self::Many(pipeline) => {
                pipeline.query_async(connection).await.map(Value::Array).map_err(first_of)
            }
        }
    }
}

/// What the first call that failed was answered: the error of a pipeline has no code of its own.
fn first_of(error: RedisError) -> RedisError {
    let first = error.clone().into_server_errors().and_then(|errors| errors.first().cloned());
    first.map_or(error, |(_, error)| error.into())
}

fn is_unknown_function(error: &RedisError) -> bool {
    error.to_string().contains("Function not found")
}
