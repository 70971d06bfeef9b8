use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::{Http, Process, kubernetes};

/// What an API server writes of itself, again and again.
const ITS_OWN: &[u8] = b"/registry/leases/kube-system/";

/// Looks until nothing is written any more, and the pause between two.
const LOOKS_MAX: usize = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Values by their keys, both in Base64, as etcd's JSON has them.
pub(crate) type Entries = BTreeMap<String, String>;

/// An etcd in a folder, without syncs.
#[derive(Debug)]
pub(crate) struct Etcd {
    process: Process,
    client: u16,
}

impl Etcd {
    pub(crate) fn start(root: &Path, client: u16, peer: u16) -> io::Result<Self> {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut etcd = Command::new(kubernetes("etcd")?);
        etcd.args(["--data-dir", &root.join("etcd").display().to_string()])
            .args(["--unsafe-no-fsync", "--log-level", "error"])
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("default={}", url(peer))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(root.join("etcd.log"))?);
        Ok(Self { process: Process::spawn(&mut etcd)?, client })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything that is in it.
    pub(crate) fn entries(&self) -> io::Result<Entries> {
        let all =
            self.call("range", &json!({"key": STANDARD.encode("/"), "range_end": STANDARD.encode("0")}))?;
        let text = |entry: &Value, name: &str| {
            entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let entries = all.get("kvs").and_then(Value::as_array).into_iter().flatten();
        Ok(entries.map(|entry| (text(entry, "key"), text(entry, "value"))).collect())
    }

    /// Makes it hold these again and nothing else, also behind the last writes of clients that are gone: an API server may
    /// still have them in hand.
    pub(crate) fn put_back(&self, entries: &Entries) -> io::Result<()> {
        for _ in 0..LOOKS_MAX {
            if self.put_back_once(entries)? == 0 {
                return Ok(());
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        Err(io::Error::other("somebody still writes"))
    }

    /// Answers how much was not as it should be.
    fn put_back_once(&self, entries: &Entries) -> io::Result<usize> {
        let now = self.entries()?;
        let mut changes = 0;
        for key in now.keys().filter(|key| !entries.contains_key(*key)) {
            self.call("deleterange", &json!({"key": key}))?;
            changes += 1;
        }
        for (key, value) in entries.iter().filter(|(key, value)| now.get(*key) != Some(value)) {
            let is_its_own = STANDARD.decode(key).is_ok_and(|key| key.starts_with(ITS_OWN));
            if !is_its_own {
                self.call("put", &json!({"key": key, "value": value}))?;
                changes += 1;
            }
        }
        Ok(changes)
    }

    fn call(&self, what: &str, body: &Value) -> io::Result<Value> {
        let mut http = Http::connect(&format!("127.0.0.1:{}", self.client))?;
        let answer = http.call_json("POST", &format!("/v3/kv/{what}"), &body.to_string())?;
        match answer.status {
            200 => Ok(answer.json()),
            status => Err(io::Error::other(format!("etcd {what}: {status} {}", answer.text()))),
        }
    }
}
