//! The live page's events: shared by all who look, bounded, and of one tenant.

use std::io::{BufRead, BufReader};
use std::path::Path;

use brisq_testkit::Browser;

use super::*;

/// A page that is looked at.
struct Page(BufReader<TcpStream>);

impl Page {
    fn open(server: &Server, token: &str) -> Self {
        let mut stream = TcpStream::connect(&server.program.listen).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let head = format!(
            "GET /console/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        Self(BufReader::new(stream))
    }

    fn status(&mut self) -> u16 {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a head");
        line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    /// The next snapshot.
    fn event(&mut self) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("an event") > 0, "the stream ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("a snapshot");
            }
        }
    }
}

/// SHA-256 of "a" and "b".
pub(super) const TOKENS: &str = "tokens:\n\
    - {name: a, sha256: ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb, tenant: one, scopes: [work, \"tasks:write\", \"tasks:read\"]}\n\
    - {name: b, sha256: 3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d, tenant: two, scopes: [work, \"tasks:write\", \"tasks:read\"]}\n";

fn with_tenants(check: impl Fn(&Server, [Http; 2])) {
    for store in Store::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.yaml");
        std::fs::write(&file, TOKENS).expect("written");
        let server = Server::start(store, &["--tokens", &file.display().to_string()]).expect("a server");
        let connect = |token: &str| server.program.http().expect("a connection").with_token(token);
        check(&server, ["a", "b"].map(connect));
    }
}

#[test]
fn a_page_shows_the_rates_of_its_own_tenant() {
    with_tenants(|server, [mut one, mut two]| {
        for n in 0..5 {
            enqueue(&mut one, "emails", &json!({ "payload": n }));
        }
        enqueue(&mut two, "emails", &json!({"payload": 1}));
        for (token, enqueued) in [("a", 5), ("b", 1)] {
            let event = Page::open(server, token).event();
            assert_eq!(event["queues"].as_array().map(Vec::len), Some(1), "{event}");
            assert_eq!(event["queues"][0]["enqueuedTotal"], enqueued, "{event}");
            assert_eq!(event["queues"][0]["counts"]["ready"], enqueued, "{event}");
            assert!(event["watch"].get("p99Ms").is_none(), "no claims yet: {event}");
        }
    });
}

#[test]
fn many_viewers_share_one_look_and_have_a_bound() {
    with_tenants(|server, [mut one, _]| {
        enqueue(&mut one, "emails", &json!({"payload": 1}));
        let mut pages: Vec<Page> = (0..64).map(|_| Page::open(server, "a")).collect();
        for page in &mut pages {
            assert_eq!(page.status(), 200);
            assert_eq!(page.event()["queues"][0]["name"], "emails");
        }
        assert_eq!(Page::open(server, "b").status(), 429, "one page too many");
        let Some(redis) = &server.redis else { return };
        // 64 pages of one tenant cost what one costs: a list and counts a second, whatever their number.
        let looked_at = calls_in_4_s(redis);
        drop(pages);
        std::thread::sleep(Duration::from_secs(3));
        let at_rest = calls_in_4_s(redis);
        assert!(looked_at > at_rest, "nobody looks any more, yet {at_rest} calls and not {looked_at}");
        assert!(looked_at <= at_rest + 4 * 4, "{looked_at} calls while 64 look, {at_rest} while nobody does");
    });
}

fn calls_in_4_s(redis: &brisq_testkit::Redis) -> u64 {
    let before = calls(redis);
    std::thread::sleep(Duration::from_secs(4));
    calls(redis) - before
}

/// Functions that Redis has run.
fn calls(redis: &brisq_testkit::Redis) -> u64 {
    redis.function_calls().expect("an answer")
}

#[test]
fn a_drain_ends_the_pages() {
    with_tenants(|server, _| {
        let mut page = Page::open(server, "a");
        page.event();
        let pid = server.program.pid.to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(sent.success());
        let began = Instant::now();
        let mut rest = Vec::new();
        page.0.read_to_end(&mut rest).expect("an end");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
}

/// Nothing on a page takes longer.
pub(super) const SHOWN: Duration = Duration::from_secs(20);

#[test]
fn a_queue_is_paused_and_resumed_on_the_page_by_keyboard() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    let mut browser = Browser::start().expect("a browser");
    enqueue(&mut http, "orders", &json!({"payload": 1}));
    browser.open(&format!("http://{}/", server.program.listen), false).expect("it opens");
    let until = |browser: &mut Browser, shown: &str| browser.wait_until(shown, SHOWN).expect(shown);
    let button = "document.querySelector('#queues button')";
    let (open, closed) = ("document.querySelector('#ask').open", "!document.querySelector('#ask').open");
    let focused = format!("document.activeElement === {button}");

    // Numbers change and another queue comes before it: who stands on the button stays there.
    until(&mut browser, &format!("{button}?.textContent === 'Pause'"));
    browser.evaluate(&format!("{button}.focus()")).expect("focused");
    enqueue(&mut http, "orders", &json!({"payload": 2}));
    until(&mut browser, "document.querySelector('#queues').rows[0].cells[1].textContent === '2'");
    until(&mut browser, &focused);

    // Who thinks better of it has changed nothing.
    browser.press("Enter").expect("pressed");
    until(&mut browser, open);
    browser.press("Escape").expect("pressed");
    until(&mut browser, closed);
    assert!(ok(get(&mut http, "/v1/queues/orders"), 200)["paused"].is_null());

    until(&mut browser, &focused);
    browser.press("Enter").expect("pressed");
    until(&mut browser, open);
    pictures(&mut browser, "pause");
    browser.write("a <b>deploy</b>").expect("typed");
    browser.press("Enter").expect("pressed");
    until(&mut browser, "document.body.innerText.includes(': a <b>deploy</b>')");
    let paused = ok(get(&mut http, "/v1/queues/orders"), 200)["paused"].take();
    assert_eq!(paused["reason"], "a <b>deploy</b>");
    assert_eq!(claim(&mut http, "orders", &json!({})).len(), 0);
    pictures(&mut browser, "paused");

    until(&mut browser, &format!("{button}.textContent === 'Resume' && {focused}"));
    browser.press("Enter").expect("pressed");
    until(&mut browser, open);
    browser.press("Enter").expect("pressed");
    until(&mut browser, &format!("{closed} && {button}.textContent === 'Pause'"));
    assert_eq!(claim(&mut http, "orders", &json!({"max": 9})).len(), 2);
}

/// Of what is shown, in both schemes and at two widths, for people to look at; nothing stands out of the window.
pub(super) fn pictures(browser: &mut Browser, name: &str) {
    for width in [1_280, 360] {
        browser.width(width).expect("resized");
        let fits =
            browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth").expect("a width");
        assert_eq!(fits, true, "{name} at {width}");
        for dark in [false, true] {
            browser.scheme(dark).expect("a scheme");
            let scheme = if dark { "dark" } else { "light" };
            let file = format!("../target/screenshots/{name}-{width}-{scheme}.png");
            browser.picture(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a picture");
        }
    }
}
