//! What a server is told: its settings, and the configuration that they make. Parsed purely, and every mistake is
//! reported in one start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use brisq_api::DeclaredQueues;
use brisq_settings::{Files, Given, Secret, Setting, Settings, address};

use crate::auth::Auth;
use crate::queues_file;

/// Redis nodes of one `--redis` list.
const REDIS_URLS_MAX: usize = 64;
/// Schemes of URLs that lead to Redis.
const REDIS_SCHEMES: [&str; 3] = ["redis://", "rediss://", "redis+sentinel://"];
/// Threshold of slow claims, ms.
const THRESHOLD_MS: std::ops::RangeInclusive<u64> = 1..=60_000;

/// All that a server can be told, by flags, `BRISQ_...` variables or a file.
pub const SETTINGS: &[Setting] = &[
    Setting::new("data", "DIR", "Folder of the embedded store; made if absent"),
    Setting::new("redis", "URL", "Redis to keep tasks in instead, such as redis://127.0.0.1:6379. A password is better given by BRISQ_REDIS or --config: everybody on this machine can read flags")
        .many()
        .secret(),
    Setting::new("listen", "ADDRESS", "Address of the public API; port 0 picks a free one").default("127.0.0.1:7070"),
    Setting::new("admin-listen", "ADDRESS", "Address of metrics and profiles").default("127.0.0.1:7071"),
    Setting::new("metrics-listen", "ADDRESS", "Address of metrics alone, for scrapers beyond this machine; without it they are at --admin-listen only"),
    Setting::new(
        "probe-listen",
        "ADDRESS",
        "Address of /healthz and /readyz alone, where no other connections stand before a probe's",
    ),
    Setting::new("tokens", "FILE", "File of static tokens; turns authentication on"),
    Setting::new("queues", "FILE", "File of queues and what holds for their tasks, as `queues` of a manifest; `PUT` changes none of them then"),
    Setting::new("insecure", "", "Listen beyond loopback without authentication").default("false").switch(),
    Setting::new("durability", "LEVEL", "Embedded store: `fsync` before every answer, or `relaxed`, which a crash of the machine can cost the last second [default: fsync]"),
    Setting::new("ready-file", "PATH", "Written, whole, once the server is ready"),
    Setting::new("claim-threshold-ms", "MS", "Claims above this latency count as slow").default("5"),
    Setting::new("recorder", "STATE", "Whether stacks are recorded all the time: `on` or `off`").default("on"),
    Setting::new("profiler-socket", "PATH", "Unix socket on which the profiling sidecar listens"),
];

/// Behind the flags in `--help`.
pub const AFTER_HELP: &str = "Every flag is also taken as BRISQ_<FLAG> from the environment and by its name from the file of \
--config; flags go before the environment, and that before the file. Files that were read are read again when they change \
and at SIGHUP: tokens, queues and claim-threshold-ms apply without a restart.";

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
        /// At least one; they may hold a password.
        urls: Vec<Secret<String>>,
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
    /// The queues that a manifest declares.
    pub queues: Option<DeclaredQueues>,
    /// Authentication is off beyond loopback, on purpose.
    pub insecure: bool,
    /// Written once the server is ready.
    pub ready_file: Option<PathBuf>,
    /// Threshold of slow claims.
    pub claim_threshold: Duration,
    /// Whether stacks are recorded.
    pub recorder: bool,
    /// Where the profiling sidecar listens, if there is one.
    pub profiler_socket: Option<PathBuf>,
}

impl Config {
    /// Makes a configuration of what a start was given and of the files that it names.
    ///
    /// # Errors
    /// Every mistake, each with the setting it is about.
    pub fn resolve(given: &Given, files: &mut Files) -> Result<Self, Vec<String>> {
        let mut settings = given.resolve(files);
        let store = store(&mut settings);
        let listen = settings.get("listen", address);
        let admin_listen = settings.get("admin-listen", address);
        let metrics_listen = settings.get("metrics-listen", address);
        let probe_listen = settings.get("probe-listen", address);
        let insecure = settings.is_on("insecure");
        let recorder = settings.one_of("recorder", &["on", "off"]).is_some_and(|state| state == "on");
        let threshold = settings.number("claim-threshold-ms", THRESHOLD_MS);
        let ready_file = settings.text("ready-file").map(PathBuf::from);
        let profiler_socket = settings.text("profiler-socket").map(PathBuf::from);
        let auth = auth(&mut settings, files);
        let queues = queues(&mut settings, files);
        if auth.as_ref().is_some_and(|auth| !auth.is_on()) && !insecure {
            for (name, at) in [("listen", listen), ("admin-listen", admin_listen)] {
                if at.is_some_and(|at| !at.ip().is_loopback()) {
                    let text = "beyond loopback callers need tokens: give --tokens FILE (`brisq token new` makes \
                                entries), or --insecure to let everybody in";
                    settings.wrong(name, text);
                }
            }
        }
        settings.finish()?;
        let valid = "invariant: what is missing was a mistake";
        Ok(Self {
            store: store.expect(valid),
            listen: listen.expect(valid),
            admin_listen: admin_listen.expect(valid),
            metrics_listen,
            probe_listen,
            auth: auth.expect(valid),
            queues,
            insecure,
            ready_file,
            claim_threshold: Duration::from_millis(threshold.expect(valid)),
            recorder,
            profiler_socket,
        })
    }
}

fn store(settings: &mut Settings) -> Option<StoreChoice> {
    let data = settings.text("data").map(PathBuf::from);
    let urls = settings.all("redis", |url| {
        if REDIS_SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
            return Ok(Secret::new(url.to_owned()));
        }
        Err(format!("the URL begins with {}", REDIS_SCHEMES.join(" or ")))
    });
    let durability = settings.one_of("durability", &["fsync", "relaxed"]);
    let fsync = durability.is_none_or(|level| level == "fsync");
    match (settings.is_given("data"), settings.is_given("redis")) {
        (true, false) => data.map(|data| StoreChoice::Embedded { data, fsync }),
        (false, true) => {
            if settings.is_given("durability") {
                settings.wrong("durability", "is about --data; on Redis its own settings decide");
            }
            if urls.len() > REDIS_URLS_MAX {
                settings.wrong("redis", &format!("at most {REDIS_URLS_MAX} URLs are taken"));
            }
            Some(StoreChoice::Redis { urls })
        }
        (false, false) => {
            settings.mistake("no store: give --data DIR (embedded) or --redis URL");
            None
        }
        (true, true) => {
            settings.mistake("two stores: give --data or --redis, not both");
            None
        }
    }
}

fn auth(settings: &mut Settings, files: &mut Files) -> Option<Auth> {
    if !settings.is_given("tokens") {
        return Some(Auth::off());
    }
    let path = settings.text("tokens")?;
    match files.read(&path).map_err(|mistake| vec![mistake]).and_then(|text| Auth::from_yaml(&text)) {
        Ok(auth) => Some(auth),
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| settings.wrong("tokens", mistake));
            None
        }
    }
}

fn queues(settings: &mut Settings, files: &mut Files) -> Option<DeclaredQueues> {
    let path = settings.text("queues")?;
    let read = files.read(&path).map_err(|mistake| vec![mistake]).and_then(|text| queues_file::read(&text));
    read.map_err(|mistakes| mistakes.iter().for_each(|mistake| settings.wrong("queues", mistake))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: &[&str], file: &str) -> Result<Config, Vec<String>> {
        let command = Setting::command("brisq-server", "1", "", SETTINGS);
        let given =
            Given::of(SETTINGS, &command.try_get_matches_from([&["brisq-server"], args].concat()).unwrap());
        let file = file.to_owned();
        Config::resolve(&given, &mut Files::from_reader(move |_| Ok(file.clone())))
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
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
        let parts = [
            "flisten",
            "--listen here",
            "--durability maybe",
            "--recorder loud",
            "no store",
            "beyond loopback",
        ];
        for part in parts {
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
        assert!(resolve(&["--data", ""], "").is_err());
        assert!(resolve(&["--redis", "http://h"], "").is_err());
        let two = resolve(&["--redis", "redis://a", "--redis", "redis://b"], "").unwrap();
        let urls = ["redis://a", "redis://b"].map(|url| Secret::new(url.to_owned())).to_vec();
        assert_eq!(two.store, StoreChoice::Redis { urls });
    }

    #[test]
    fn no_mistake_shows_a_password() {
        for args in [
            &["--redis", " redis://:hunter2@h"][..],
            &["--redis", "http://:hunter2@h"][..],
            &["--redis", "redis://:hunter2@h", "--durability", "fsync"][..],
            &["--redis", "redis://:hunter2@h", "--data", "d"][..],
        ] {
            let mistakes = resolve(args, "").unwrap_err();
            assert!(!format!("{mistakes:?}").contains("hunter2"), "{mistakes:?}");
        }
        let config = resolve(&["--redis", "redis://:hunter2@h"], "").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let mistakes = resolve(&["--data", "d", "--tokens", "t"], "tokens: hunter2").unwrap_err();
        assert!(!format!("{mistakes:?}").contains("hunter2"), "{mistakes:?}");
    }
}
