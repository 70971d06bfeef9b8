use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use crate::{Http, Process};

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// No command of the browser takes longer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The protocol's bit of a key that is held down with another.
const SHIFT: u8 = 8;

/// A real Chromium without a window, driven by its DevTools protocol.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    _process: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts it with one empty page.
    ///
    /// # Errors
    /// When it is not installed or does not answer.
    pub fn start() -> io::Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut command = Command::new("chromium");
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--window-size=1200,900",
            ])
            .args(["--remote-debugging-port=0", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::spawn(&mut command).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("chromium cannot be started: {error}; install the package chromium"),
            )
        })?;
        let socket = connect(&mut process, profile.path())?;
        Ok(Self { socket, last_id: 0, _process: process, _profile: profile })
    }

    /// Opens a page, in the light or the dark scheme.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn open(&mut self, url: &str, dark: bool) -> io::Result<()> {
        self.scheme(dark)?;
        self.command("Page.navigate", &json!({ "url": url })).map(|_| ())
    }

    /// Shows the page that is open in the light or the dark scheme.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn scheme(&mut self, dark: bool) -> io::Result<()> {
        let feature = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        self.command("Emulation.setEmulatedMedia", &json!({ "features": [feature] })).map(|_| ())
    }

    /// Waits until an expression of the page is true.
    ///
    /// # Errors
    /// When it does not become true in time; the text ends with the page's.
    pub fn wait_until(&mut self, expression: &str, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        while self.evaluate(expression)? != Value::Bool(true) {
            if Instant::now() > deadline {
                let text = self.evaluate("document.body.innerText")?;
                return Err(io::Error::other(format!("`{expression}` is not true: {text}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Value of an expression of the page.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn evaluate(&mut self, expression: &str) -> io::Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true});
        let answer = self.command("Runtime.evaluate", &asked)?;
        Ok(answer.pointer("/result/value").cloned().unwrap_or_default())
    }

    /// Makes the page so many CSS pixels wide.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn width(&mut self, width: u32) -> io::Result<()> {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", &metrics).map(|_| ())
    }

    /// Sends this token with every request of the page from now on, as a proxy before the server does.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn token(&mut self, token: &str) -> io::Result<()> {
        self.command("Network.enable", &json!({}))?;
        let headers = json!({"Authorization": format!("Bearer {token}")});
        self.command("Network.setExtraHTTPHeaders", &json!({ "headers": headers })).map(|_| ())
    }

    /// Presses a key of the keyboard, `Enter`, `Escape`, `Tab` or `Shift+Tab`, on whatever has the focus.
    ///
    /// # Errors
    /// When the browser refuses, or the key is another.
    pub fn press(&mut self, key: &str) -> io::Result<()> {
        let (key, code, text, modifiers) = match key {
            "Enter" => (key, 13, "\r", 0),
            "Escape" => (key, 27, "", 0),
            "Tab" => (key, 9, "", 0),
            "Shift+Tab" => ("Tab", 9, "", SHIFT),
            other => return Err(io::Error::new(io::ErrorKind::InvalidInput, other)),
        };
        let event = |kind: &str| json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text, "modifiers": modifiers});
        self.command("Input.dispatchKeyEvent", &event("keyDown"))?;
        self.command("Input.dispatchKeyEvent", &event("keyUp")).map(|_| ())
    }

    /// Types a text.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        self.command("Input.insertText", &json!({ "text": text })).map(|_| ())
    }

    /// Writes a picture of the whole page.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub fn picture(&mut self, file: &Path) -> io::Result<()> {
        let answer =
            self.command("Page.captureScreenshot", &json!({"captureBeyondViewport": true, "format": "png"}))?;
        let data = answer.get("data").and_then(Value::as_str).unwrap_or_default();
        let bytes = BASE64_STANDARD.decode(data).map_err(io::Error::other)?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(file, bytes)
    }

    fn command(&mut self, method: &str, params: &Value) -> io::Result<Value> {
        self.last_id += 1;
        let message = json!({"id": self.last_id, "method": method, "params": params});
        self.socket.send(Message::text(message.to_string())).map_err(io::Error::other)?;
        loop {
            let Message::Text(text) = self.socket.read().map_err(io::Error::other)? else { continue };
            let answer: Value = serde_json::from_str(&text)?;
            if answer.get("id").and_then(Value::as_u64) != Some(self.last_id) {
                // Events of the page, of which none is needed.
                continue;
            }
            return match answer.get("error") {
                Some(error) => Err(io::Error::other(format!("{method}: {error}"))),
                None => Ok(answer.get("result").cloned().unwrap_or_default()),
            };
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its own processes when it is asked to; whatever is left of it is killed with the process.
        let _ = self.command("Browser.close", &json!({}));
    }
}

/// The browser writes its port into its profile, and tells the address of its page there.
fn connect(process: &mut Process, profile: &Path) -> io::Result<WebSocket<TcpStream>> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some((address, path)) = page_of(profile) {
            let stream = TcpStream::connect(&address)?;
            let url = format!("ws://{address}{path}");
            stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
            return tungstenite::client(url, stream).map(|(socket, _)| socket).map_err(io::Error::other);
        }
        if Instant::now() > deadline || !process.is_running() {
            return Err(io::Error::other("chromium does not answer"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Address and path of the page's protocol.
fn page_of(profile: &Path) -> Option<(String, String)> {
    let text = std::fs::read_to_string(profile.join("DevToolsActivePort")).ok()?;
    let address = format!("127.0.0.1:{}", text.lines().next()?);
    let targets = Http::connect(&address).ok()?.call("GET", "/json/list", "").ok()?.json();
    let is_page = |target: &&Value| target.get("type").is_some_and(|kind| kind == "page");
    let url = targets.as_array()?.iter().find(is_page)?.get("webSocketDebuggerUrl")?.as_str()?.to_owned();
    Some((address, url.get(url.find("/devtools/")?..)?.to_owned()))
}
