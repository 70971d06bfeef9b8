//! Reaching Redis, and what it promises.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError, io::tcp::TcpSettings};
use socket2::TcpKeepalive;

/// No answer after this: the call counts as failed, though it may have run.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// No connection after this, its name resolved and its password accepted.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer whose kernel acknowledges nothing for so long is gone, with its machine: without this a connection to it was
/// kept for the fifteen minutes that the kernel sends again. A Redis that is only slow or stopped still acknowledges.
const UNHEARD_MAX: Duration = Duration::from_secs(5);
/// Functions came with 7.0.
const VERSION_MIN: u32 = 7;

/// Why Redis cannot be used. No text of it holds a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none. The text of it is left out: it may hold a password.
    #[error("not a Redis URL such as redis://USER:PASSWORD@HOST:6379/0: {0}")]
    Url(&'static str),
    /// Several nodes, or a way to reach them, that this version does not know.
    #[error("{0} is not supported by this version: give one redis:// URL")]
    Unsupported(&'static str),
    /// The user, or its password, is not the one that Redis knows.
    #[error(
        "Redis refuses the password, or asks for one: give it in the URL, redis://USER:PASSWORD@HOST:PORT (without a user of its own :PASSWORD@)"
    )]
    WrongPassword,
    /// Nobody answers, or not as Redis does.
    #[error("Redis does not answer: {0}")]
    Unreachable(RedisError),
    /// Too old.
    #[error("Redis {0} has no functions: version {VERSION_MIN}.0 or later is needed")]
    Version(String),
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        if is_wrong_password(&error) { Self::WrongPassword } else { Self::Unreachable(error) }
    }
}

/// Whether Redis does not know us.
pub(crate) fn is_wrong_password(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// The client for one node.
pub(crate) fn client(urls: &[String]) -> Result<Client, ConnectError> {
    let [url] = urls else { return Err(ConnectError::Unsupported("Redis Cluster")) };
    if url.starts_with("rediss://") {
        return Err(ConnectError::Unsupported("TLS to Redis"));
    }
    if url.starts_with("redis+sentinel://") {
        return Err(ConnectError::Unsupported("Redis Sentinel"));
    }
    let not_understood = |_| ConnectError::Url("a part of it is not understood");
    let info = url.as_str().into_connection_info().map_err(not_understood)?;
    let keepalive = TcpKeepalive::new().with_time(UNHEARD_MAX).with_interval(Duration::from_secs(1));
    let settings =
        TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(UNHEARD_MAX);
    let info = info.set_tcp_settings(settings);
    Client::open(info).map_err(not_understood)
}

/// A connection to whoever has the address now.
pub(crate) async fn connection(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(CONNECT_TIMEOUT));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Refuses a Redis without functions. One that does not tell its version is found out when the library is loaded.
pub(crate) async fn check_version(connection: &mut MultiplexedConnection) -> Result<(), ConnectError> {
    let info: Result<String, RedisError> = redis::cmd("INFO").arg("server").query_async(connection).await;
    let info = match info {
        Ok(info) => info,
        Err(error) if error.code() == Some("NOPERM") => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown");
    let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok());
    if major.is_none_or(|major| major < VERSION_MIN) {
        return Err(ConnectError::Version(version.to_owned()));
    }
    Ok(())
}

/// What a crash can cost, as a sentence.
pub(crate) async fn persistence(connection: &mut MultiplexedConnection) -> String {
    let append_only = setting(connection, "appendonly").await;
    let sync = setting(connection, "appendfsync").await;
    match (append_only.as_deref(), sync.as_deref()) {
        (Some("yes"), Some("always")) => {
            "appendfsync always, a crash loses nothing that was answered".to_owned()
        }
        (Some("yes"), Some("everysec")) => {
            "appendfsync everysec, a crash can lose the last second".to_owned()
        }
        (Some("yes"), Some(other)) => {
            format!("appendfsync {other}, a crash can lose what the system had not written")
        }
        (Some(_), _) => "no append-only file, a crash loses all since the last snapshot".to_owned(),
        (None, _) => "persistence unknown, its settings cannot be read".to_owned(),
    }
}

/// A setting, where the server lets us read it: managed ones often do not.
async fn setting(connection: &mut MultiplexedConnection, name: &str) -> Option<String> {
    let pair: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await.ok()?;
    pair.into_iter().nth(1)
}
