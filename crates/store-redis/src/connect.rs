//! Reaching Redis, and what it must be like to be used.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, IntoConnectionInfo, RedisError, io::tcp::TcpSettings};
use socket2::TcpKeepalive;

/// No answer after this: the call counts as failed, though it may have run.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// No connection after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest pause between two tries to connect again.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);
/// Tries of one reconnection; the next call begins another.
const RECONNECT_TRIES: usize = 6;
/// A peer whose kernel acknowledges nothing for so long is gone, with its machine: without this a connection to it was
/// kept for the fifteen minutes that the kernel sends again. A Redis that is only slow or stopped still acknowledges.
const UNHEARD_MAX: Duration = Duration::from_secs(5);
/// Functions came with 7.0.
const VERSION_MIN: u32 = 7;

/// Why Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("not a Redis URL: {0}")]
    Url(RedisError),
    /// Several nodes, or a way to reach them, that this version does not know.
    #[error("{0} is not supported by this version: give one redis:// URL")]
    Unsupported(&'static str),
    /// Nobody answers, or not as Redis does.
    #[error("Redis does not answer: {0}")]
    Unreachable(#[from] RedisError),
    /// Too old.
    #[error("Redis {0} has no functions: version {VERSION_MIN}.0 or later is needed")]
    Version(String),
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
    let info = url.as_str().into_connection_info().map_err(ConnectError::Url)?;
    let keepalive = TcpKeepalive::new().with_time(UNHEARD_MAX).with_interval(Duration::from_secs(1));
    let settings =
        TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(UNHEARD_MAX);
    let info = info.set_tcp_settings(settings);
    Client::open(info).map_err(ConnectError::Url)
}

/// A connection that finds Redis again by itself.
pub(crate) async fn connection(client: &Client) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_max_delay(RECONNECT_DELAY_MAX)
        .set_number_of_retries(RECONNECT_TRIES);
    client.get_connection_manager_with_config(config).await
}

/// What Redis says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// What a crash can cost, as a sentence.
    pub(crate) persistence: String,
    /// `noeviction`, or what threatens tasks.
    pub(crate) eviction: String,
}

/// Asks Redis for its version and settings.
pub(crate) async fn facts(connection: &mut ConnectionManager) -> Result<Facts, ConnectError> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown");
    let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok());
    if major.is_none_or(|major| major < VERSION_MIN) {
        return Err(ConnectError::Version(version.to_owned()));
    }
    let append_only = setting(connection, "appendonly").await;
    let sync = setting(connection, "appendfsync").await;
    let persistence = match (append_only.as_deref(), sync.as_deref()) {
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
    };
    let eviction = setting(connection, "maxmemory-policy").await.unwrap_or_else(|| "unknown".to_owned());
    Ok(Facts { persistence, eviction })
}

/// A setting, where the server lets us read it: managed ones often do not.
async fn setting(connection: &mut ConnectionManager, name: &str) -> Option<String> {
    let pair: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await.ok()?;
    pair.into_iter().nth(1)
}
