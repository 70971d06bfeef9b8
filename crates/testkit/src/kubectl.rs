use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Process, kubernetes};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `kubectl` and its friends, on one cluster and namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Kubectl {
    /// For the namespace `default`.
    ///
    /// # Errors
    /// When `kubectl` cannot be had.
    pub fn new(kubeconfig: &Path) -> io::Result<Self> {
        let kubectl = kubernetes("kubectl")?;
        Ok(Self { kubectl, kubeconfig: kubeconfig.to_path_buf(), namespace: "default".to_owned() })
    }

    /// The same for another namespace.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A command that speaks to this cluster and namespace, `kubectl` or another program with its flags.
    #[must_use]
    pub fn command(&self, program: Option<&Path>) -> Command {
        let mut command = Command::new(program.unwrap_or(&self.kubectl));
        command.env("KUBECONFIG", &self.kubeconfig).args(["-n", &self.namespace]).stdin(Stdio::null());
        command
    }

    /// What `kubectl` prints.
    ///
    /// # Errors
    /// When it fails; the text is what it says.
    pub fn run(&self, args: &[&str]) -> io::Result<String> {
        finish(args, self.command(None).args(args).output()?)
    }

    /// Applies a manifest, server-side and strictly.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub fn apply(&self, yaml: &str) -> io::Result<String> {
        self.feed(&["apply", "--server-side", "--validate=strict", "-f", "-"], yaml)
    }

    /// Runs with a manifest on standard input.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub fn feed(&self, args: &[&str], yaml: &str) -> io::Result<String> {
        let mut command = self.command(None);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?.write_all(yaml.as_bytes())?;
        finish(args, child.wait_with_output()?)
    }

    /// An object, or a list of them, as JSON.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub fn get(&self, args: &[&str]) -> io::Result<Value> {
        let text = self.run(&[&["get", "-o", "json"], args].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// A plain door to the API server, at the address beside it, while the process runs. A call through it costs a hundredth
    /// of a `kubectl`.
    ///
    /// # Errors
    /// When it does not open.
    pub fn proxy(&self) -> io::Result<(Process, String)> {
        let mut command = self.command(None);
        let mut proxy = command.args(["proxy", "--port=0"]).stdout(Stdio::piped()).spawn()?;
        let told = proxy.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let proxy = Process::from(proxy);
        let mut line = String::new();
        BufReader::new(told).read_line(&mut line)?;
        // `Starting to serve on 127.0.0.1:40123`.
        let address = line.split_whitespace().last().ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((proxy, address.to_owned()))
    }

    /// Looks until `look` finds something.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn until<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> io::Result<(T, Duration)> {
        let began = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return Ok((found, began.elapsed()));
            }
            if began.elapsed() > timeout {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("not within {timeout:?}: {what}"),
                ));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn finish(args: &[&str], output: std::process::Output) -> io::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("kubectl {}: {}", args.join(" "), text.trim())))
}
