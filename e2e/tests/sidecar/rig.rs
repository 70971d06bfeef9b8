//! A sidecar in a temporary folder, and what is asked of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use brisq_testkit::{Http, Process, binary};
use serde_json::Value;
use tempfile::TempDir;

/// Credentials of the S3-compatible store.
pub const ACCESS: &str = "access";
pub const SECRET: &str = "secretsecret";
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The program.
pub struct Sidecar {
    process: Process,
    pub folder: TempDir,
    under: Vec<String>,
    args: Vec<String>,
    address: String,
    pid: u64,
}

impl Sidecar {
    pub fn start(args: &[&str]) -> Self {
        Self::start_under(&[], args)
    }

    /// Starts it under another command, such as `strace -f`, which ends with it.
    pub fn start_under(under: &[&str], args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (under, args) = (owned(under), owned(args));
        let (process, address, pid) = Self::launch(folder.path(), &under, &args);
        Self { process, folder, under, args, address, pid }
    }

    fn launch(folder: &Path, under: &[String], args: &[String]) -> (Process, String, u64) {
        let ready = folder.join("ready.json");
        // Absent at the first start.
        let _ = std::fs::remove_file(&ready);
        let program = binary("brisq-profiler").expect("brisq-profiler");
        let mut command = match under.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.arg("--socket").arg(folder.join("profiler.sock"));
        if !args.iter().any(|arg| arg == "--s3-bucket") {
            command.arg("--data").arg(folder.join("data"));
        }
        // For those that keep their bundles in a store.
        command.env("AWS_ACCESS_KEY_ID", ACCESS).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.args(["--listen", "127.0.0.1:0", "--ready-file"]).arg(&ready).args(args);
        let process = Process::spawn(command.stdin(Stdio::null()).stderr(Stdio::null())).expect("a sidecar");
        let text = until("it listens", || std::fs::read_to_string(&ready).ok());
        let ready: Value = serde_json::from_str(&text).expect("a ready file");
        let address = ready["listen"].as_str().expect("an address").to_owned();
        (process, address, ready["pid"].as_u64().expect("a process id"))
    }

    pub fn restart(&mut self) {
        self.process.kill9();
        (self.process, self.address, self.pid) = Self::launch(self.folder.path(), &self.under, &self.args);
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn socket(&self) -> String {
        self.folder.path().join("profiler.sock").display().to_string()
    }

    pub fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut http = Http::connect(&self.address).expect("the sidecar");
        let answer = http.call_json(method, path, &body).expect("an answer");
        (answer.status, answer.json())
    }

    /// Asks for a capture, once there is a server to capture.
    pub fn ask(&self, name: &str, window: &Value) {
        until("it is taken", || {
            (self.call("PUT", &format!("/v1/captures/{name}"), window).0 == 202).then_some(())
        });
    }

    pub fn complete(&self, name: &str) -> Value {
        until("it is complete", || {
            let (_, state) = self.call("GET", &format!("/v1/captures/{name}"), &Value::Null);
            assert_ne!(state["phase"], "Failed", "{state}");
            (state["phase"] == "Complete").then_some(state)
        })
    }

    /// The server's counts, once it has sent some.
    pub fn slo(&self) -> Value {
        until("counts come", || {
            Some(self.call("GET", "/v1/slo", &Value::Null)).filter(|(status, _)| *status == 200)
        })
        .1
    }

    pub fn captures(&self) -> Vec<PathBuf> {
        let entries =
            |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let dates = entries(self.folder.path().join("data/captures"));
        dates.flat_map(entries).filter(|folder| folder.join("manifest.json").exists()).collect()
    }
}

impl Drop for Sidecar {
    /// Under another command the process that is ours to kill is that one, and the sidecar would live on.
    fn drop(&mut self) {
        if !self.under.is_empty() {
            let pid = self.pid.to_string();
            // It may have ended by itself: then there is nothing to kill.
            let _ = Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status();
        }
    }
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(50));
    }
}

pub fn json_of(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(name)).expect("a file")).expect("JSON")
}
