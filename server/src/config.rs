//! Configuration: defaults, then `--config FILE`, then `BRISQ_*`, then flags. Parsed purely, and every mistake is
//! reported in one start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::auth::Auth;

/// Default of `--listen`.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7070";
/// Default of `--admin-listen`.
pub const ADMIN_LISTEN_DEFAULT: &str = "127.0.0.1:7071";
/// Redis nodes of one `--redis` list.
const REDIS_URLS_MAX: usize = 64;

/// Queue server of Brisq: tasks over HTTP, on an embedded store or on Redis.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "brisq-server", version)]
pub struct Flags {
    /// Folder of the embedded store; made if absent
    #[arg(long, env = "BRISQ_DATA", value_name = "DIR")]
    data: Option<String>,
    /// Redis to keep tasks in instead, such as redis://127.0.0.1:6379
    #[arg(long, env = "BRISQ_REDIS", value_name = "URL", value_delimiter = ',')]
    redis: Vec<String>,
    /// Address of the public API; port 0 picks a free one [default: 127.0.0.1:7070]
    #[arg(long, env = "BRISQ_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of metrics and profiles [default: 127.0.0.1:7071]
    #[arg(long, env = "BRISQ_ADMIN_LISTEN", value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Address of metrics alone, for scrapers beyond this machine; without it they are at --admin-listen only
    #[arg(long, env = "BRISQ_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    /// Address of /healthz and /readyz alone, where no other connections stand before a probe's
    #[arg(long, env = "BRISQ_PROBE_LISTEN", value_name = "ADDRESS")]
    probe_listen: Option<String>,
    /// File of static tokens; turns authentication on
    #[arg(long, env = "BRISQ_TOKENS", value_name = "FILE")]
    tokens: Option<String>,
    /// Listen beyond loopback without authentication
    #[arg(long, env = "BRISQ_INSECURE", num_args = 0..=1, default_missing_value = "true")]
    insecure: Option<String>,
    /// Embedded store: `fsync` before every answer, or `relaxed`, which a crash of the machine can cost the last second
    #[arg(long, env = "BRISQ_DURABILITY", value_name = "LEVEL")]
    durability: Option<String>,
    /// Written, whole, once the server is ready
    #[arg(long, env = "BRISQ_READY_FILE", value_name = "PATH")]
    ready_file: Option<String>,
    /// Claims above this latency count as slow, in ms [default: 5]
    #[arg(long, env = "BRISQ_CLAIM_THRESHOLD_MS", value_name = "MS")]
    claim_threshold_ms: Option<String>,
    /// Whether stacks are recorded all the time: `on` or `off` [default: on]
    #[arg(long, env = "BRISQ_RECORDER", value_name = "STATE")]
    recorder: Option<String>,
    /// Unix socket on which the profiling sidecar listens
    #[arg(long, env = "BRISQ_PROFILER_SOCKET", value_name = "PATH")]
    profiler_socket: Option<String>,
    /// File with any of these settings in YAML, named as the flags are. Read again when it changes, as the tokens file
    /// is; what applies without a restart is `claim-threshold-ms`
    #[arg(long, env = "BRISQ_CONFIG", value_name = "FILE")]
    config: Option<String>,
    /// Print the OpenAPI document and end
    #[arg(long)]
    pub print_openapi: bool,
}

/// Where tasks are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    /// In a folder of ours.
    Embedded {
        /// The folder.
        data: PathBuf,
        /// Whether an answer waits for the disk.
        fsync: bool,
    },
    /// In Redis; several URLs name nodes of one cluster.
    Redis {
        /// At least one.
        urls: Vec<String>,
    },
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where tasks are kept.
    pub store: StoreChoice,
    /// Public API.
    pub listen: SocketAddr,
    /// Metrics and profiles.
    pub admin_listen: SocketAddr,
    /// Metrics alone.
    pub metrics_listen: Option<SocketAddr>,
    /// Probes alone.
    pub probe_listen: Option<SocketAddr>,
    /// Who may call.
    pub auth: Auth,
    /// Authentication is off beyond loopback, on purpose.
    pub insecure: bool,
    /// See [`Flags`].
    pub ready_file: Option<PathBuf>,
    /// Threshold of slow claims.
    pub claim_threshold: std::time::Duration,
    /// Whether stacks are recorded.
    pub recorder: bool,
    /// Where the profiling sidecar listens, if there is one.
    pub profiler_socket: Option<PathBuf>,
}

impl Flags {
    /// Files that are read again when they change.
    #[must_use]
    pub fn followed(&self) -> Vec<PathBuf> {
        [&self.config, &self.tokens].into_iter().flatten().map(PathBuf::from).collect()
    }
}

/// Reads a file; injected, so that parsing stays pure.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> std::io::Result<String>;

impl Flags {
    /// Lays the flags (and environment) over the file they name, and checks everything.
    ///
    /// # Errors
    /// Every mistake, each with the setting it is about.
    pub fn resolve(mut self, read: ReadFile<'_>) -> Result<Config, Vec<String>> {
        let mut mistakes = Vec::new();
        if let Some(path) = self.config.take() {
            match read(&path).map_err(|e| e.to_string()).and_then(|text| parse_file(&text)) {
                Ok(file) => self.fill_from(file, &mut mistakes),
                Err(error) => mistakes.push(format!("--config {path}: {error}")),
            }
        }
        let listen = address("--listen", self.listen.as_deref().unwrap_or(LISTEN_DEFAULT), &mut mistakes);
        let admin = address(
            "--admin-listen",
            self.admin_listen.as_deref().unwrap_or(ADMIN_LISTEN_DEFAULT),
            &mut mistakes,
        );
        let metrics_listen =
            self.metrics_listen.as_deref().and_then(|text| address("--metrics-listen", text, &mut mistakes));
        let probe_listen =
            self.probe_listen.as_deref().and_then(|text| address("--probe-listen", text, &mut mistakes));
        let store = self.store(&mut mistakes);
        let insecure =
            choice("--insecure", self.insecure.as_deref(), "false", &["true", "false"], &mut mistakes)
                == "true";
        let recorder =
            choice("--recorder", self.recorder.as_deref(), "on", &["on", "off"], &mut mistakes) == "on";
        let threshold = self.threshold(&mut mistakes);
        let auth = self.auth(read, &mut mistakes);
        if let (Some(listen), Some(admin), Some(auth)) = (listen, admin, &auth) {
            for (flag, at) in [("--listen", listen), ("--admin-listen", admin)] {
                if !auth.is_on() && !insecure && !at.ip().is_loopback() {
                    mistakes.push(format!(
                        "{flag} {at}: beyond loopback callers need tokens: give --tokens FILE (`brisq token new` \
                         makes entries), or --insecure to let everybody in"
                    ));
                }
            }
        }
        match (store, listen, admin, auth, threshold) {
            (Some(store), Some(listen), Some(admin_listen), Some(auth), Some(claim_threshold))
                if mistakes.is_empty() =>
            {
                let ready_file = self.ready_file.map(PathBuf::from);
                let profiler_socket = self.profiler_socket.map(PathBuf::from);
                Ok(Config {
                    store,
                    listen,
                    admin_listen,
                    metrics_listen,
                    probe_listen,
                    auth,
                    insecure,
                    ready_file,
                    claim_threshold,
                    recorder,
                    profiler_socket,
                })
            }
            _ => Err(mistakes),
        }
    }

    fn store(&self, mistakes: &mut Vec<String>) -> Option<StoreChoice> {
        let levels = ["fsync", "relaxed"];
        let fsync = choice("--durability", self.durability.as_deref(), "fsync", &levels, mistakes) == "fsync";
        match (&self.data, self.redis.as_slice()) {
            (Some(data), []) => Some(StoreChoice::Embedded { data: PathBuf::from(data), fsync }),
            (None, [_, ..]) => {
                if self.durability.is_some() {
                    mistakes.push("--durability: is about --data; on Redis its own settings decide".into());
                }
                if self.redis.len() > REDIS_URLS_MAX {
                    mistakes.push(format!("--redis: at most {REDIS_URLS_MAX} URLs are taken"));
                }
                for url in &self.redis {
                    if !["redis://", "rediss://", "redis+sentinel://"].iter().any(|s| url.starts_with(s)) {
                        mistakes.push(format!(
                            "--redis {url}: begins with redis://, rediss:// or redis+sentinel://"
                        ));
                    }
                }
                Some(StoreChoice::Redis { urls: self.redis.clone() })
            }
            (None, []) => {
                mistakes.push("no store: give --data DIR (embedded) or --redis URL".into());
                None
            }
            (Some(_), _) => {
                mistakes.push("two stores: give --data or --redis, not both".into());
                None
            }
        }
    }

    fn threshold(&self, mistakes: &mut Vec<String>) -> Option<std::time::Duration> {
        let Some(text) = &self.claim_threshold_ms else { return Some(std::time::Duration::from_millis(5)) };
        match text.parse::<u64>() {
            Ok(ms @ 1..=60_000) => Some(std::time::Duration::from_millis(ms)),
            _ => {
                mistakes.push(format!("--claim-threshold-ms {text}: is 1 to 60000"));
                None
            }
        }
    }

    fn auth(&self, read: ReadFile<'_>, mistakes: &mut Vec<String>) -> Option<Auth> {
        let Some(path) = &self.tokens else { return Some(Auth::off()) };
        let parsed =
            read(path).map_err(|error| vec![error.to_string()]).and_then(|text| Auth::from_yaml(&text));
        match parsed {
            Ok(auth) => Some(auth),
            Err(entries) => {
                mistakes.extend(entries.into_iter().map(|mistake| format!("--tokens {path}: {mistake}")));
                None
            }
        }
    }

    fn fill_from(&mut self, mut file: BTreeMap<String, FileValue>, mistakes: &mut Vec<String>) {
        let single: [(&str, &mut Option<String>); 12] = [
            ("data", &mut self.data),
            ("listen", &mut self.listen),
            ("admin-listen", &mut self.admin_listen),
            ("metrics-listen", &mut self.metrics_listen),
            ("probe-listen", &mut self.probe_listen),
            ("tokens", &mut self.tokens),
            ("insecure", &mut self.insecure),
            ("durability", &mut self.durability),
            ("ready-file", &mut self.ready_file),
            ("claim-threshold-ms", &mut self.claim_threshold_ms),
            ("recorder", &mut self.recorder),
            ("profiler-socket", &mut self.profiler_socket),
        ];
        for (name, slot) in single {
            match file.remove(name) {
                Some(FileValue::One(value)) => {
                    slot.get_or_insert(value.text());
                }
                Some(FileValue::Many(_)) => mistakes.push(format!("--config: `{name}` takes one value")),
                None => {}
            }
        }
        match file.remove("redis") {
            Some(value) if self.redis.is_empty() => {
                self.redis = match value {
                    FileValue::One(one) => vec![one.text()],
                    FileValue::Many(many) => many.iter().map(Scalar::text).collect(),
                };
            }
            _ => {}
        }
        mistakes.extend(file.into_keys().map(|name| format!("--config: there is no setting `{name}`")));
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum FileValue {
    One(Scalar),
    Many(Vec<Scalar>),
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Scalar {
    Switch(bool),
    Number(u64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Switch(on) => on.to_string(),
            Self::Number(n) => n.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

fn parse_file(text: &str) -> Result<BTreeMap<String, FileValue>, String> {
    serde_saphyr::from_str(text).map_err(|error| format!("not a file of settings: {error}"))
}

fn address(flag: &str, text: &str, mistakes: &mut Vec<String>) -> Option<SocketAddr> {
    text.parse()
        .map_err(|_| {
            mistakes.push(format!("{flag} {text}: is an IP address and port such as 127.0.0.1:7070"));
        })
        .ok()
}

fn choice<'a>(
    flag: &str,
    value: Option<&'a str>,
    default: &'a str,
    allowed: &[&str],
    mistakes: &mut Vec<String>,
) -> &'a str {
    let value = value.unwrap_or(default);
    if !allowed.contains(&value) {
        mistakes.push(format!("{flag} {value}: is one of {}", allowed.join(", ")));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: &[&str], file: &str) -> Result<Config, Vec<String>> {
        let flags = Flags::try_parse_from([&["brisq-server"], args].concat()).expect("flags parse");
        flags.resolve(&|_| Ok(file.to_owned()))
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = "data: from-file\nlisten: 127.0.0.1:1\nclaim-threshold-ms: 7\n";
        let config = resolve(&["--config", "f", "--listen", "127.0.0.1:2"], file).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.admin_listen.port(), 7071);
        assert_eq!(config.claim_threshold.as_millis(), 7);
        assert_eq!(config.store, StoreChoice::Embedded { data: "from-file".into(), fsync: true });
    }

    #[test]
    fn all_mistakes_are_reported_in_one_start() {
        let args = ["--config", "f", "--listen", "here", "--durability", "maybe", "--recorder", "loud"];
        let mistakes = resolve(&args, "flisten: 1\nadmin-listen: 0.0.0.0:1\n").unwrap_err();
        for part in ["flisten", "--listen here", "--durability maybe", "--recorder loud", "no store"] {
            assert!(mistakes.iter().any(|m| m.contains(part)), "{part}: {mistakes:?}");
        }
    }

    #[test]
    fn beyond_loopback_callers_need_tokens() {
        let open = ["--data", "d", "--listen", "0.0.0.0:7070"];
        assert!(resolve(&open, "").unwrap_err()[0].contains("--tokens"));
        assert!(resolve(&[&open[..], &["--insecure"]].concat(), "").is_ok());
        let tokens = "tokens: []";
        assert!(resolve(&[&open[..], &["--tokens", "t"]].concat(), tokens).is_ok());
        assert!(resolve(&["--data", "d", "--admin-listen", "0.0.0.0:1"], "").is_err());
    }

    #[test]
    fn one_store_is_chosen() {
        assert!(resolve(&["--data", "d", "--redis", "redis://h"], "").is_err());
        assert!(resolve(&["--redis", "http://h"], "").is_err());
        let two = resolve(&["--redis", "redis://a", "--redis", "redis://b"], "").unwrap();
        assert_eq!(two.store, StoreChoice::Redis { urls: vec!["redis://a".into(), "redis://b".into()] });
    }
}
