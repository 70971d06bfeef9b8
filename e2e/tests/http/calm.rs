//! The live page in a browser while nothing is slow, or nothing happens at all: what has no number shows none.

use std::path::Path;

use brisq_e2e::Up;
use brisq_testkit::Browser;

use super::*;

/// Texts and attributes of all that is drawn; the page's script is not.
const DRAWN: &str = "(() => { const all = [...document.querySelectorAll('body *:not(script)')]; \
    return document.body.innerText + all.flatMap(e => [...e.attributes].map(a => a.value)).join('\\n'); })()";
/// Seconds that the page has shown when it is judged: rates need two.
const SHOWN: Duration = Duration::from_secs(4);

/// What the page shows once it is connected, and a picture of it for people to look at.
fn shown(browser: &mut Browser, listen: &str, name: &str, dark: bool) -> String {
    browser.open(&format!("http://{listen}/"), dark).expect("it opens");
    let connected = "document.querySelector('#store').textContent !== 'connecting…'";
    browser.wait_until(connected, Duration::from_secs(20)).expect("it connects");
    std::thread::sleep(SHOWN);
    let file = format!("../target/screenshots/{name}-{}.png", if dark { "dark" } else { "light" });
    browser.picture(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a picture");
    browser.evaluate(DRAWN).expect("a text").as_str().expect("a text").to_owned()
}

#[test]
fn a_page_without_claims_shows_no_number_that_there_is_not() {
    let mut browser = Browser::start().expect("a browser");
    for store in Store::ALL {
        let server = Server::start(store, &[]).expect("a server");
        let mut http = server.program.http().expect("a connection");
        for (what, dark) in [("empty", true), ("calm", false)] {
            if what == "calm" {
                enqueue(&mut http, "emails", &json!({"payload": 1}));
                enqueue(&mut http, "later", &json!({"payload": 1, "delayMs": 60_000}));
                ok(post(&mut http, "/v1/queues/later/pause", &json!({"reason": "<b>why</b>"})), 200);
            }
            let drawn = shown(
                &mut browser,
                &server.program.listen,
                &format!("{what}-{store:?}").to_lowercase(),
                dark,
            );
            assert!(drawn.contains("no claims yet"), "{what}: {drawn}");
            assert!(drawn.contains("no objective armed") && !drawn.contains("armed ·"), "{what}: {drawn}");
            assert_eq!(drawn.contains("emails"), what == "calm", "{drawn}");
            assert_eq!(drawn.contains("paused since 2"), what == "calm", "{drawn}");
            assert_eq!(drawn.contains("Z: <b>why</b>"), what == "calm", "as text: {drawn}");
            for none in ["NaN", "undefined", "Infinity", "null"] {
                assert!(!drawn.contains(none), "{what}: {none} in {drawn}");
            }
        }
        // No profiler is told of this server's claims: their percentile is known nowhere.
        assert_eq!(claim(&mut http, "emails", &json!({})).len(), 1);
        let drawn = shown(&mut browser, &server.program.listen, "claimed", false);
        assert!(drawn.contains("not measured here") && !drawn.contains("NaN"), "{drawn}");
    }
    let manifest = "apiVersion: brisq.dev/v1alpha1\nkind: TaskQueue\nmetadata: {name: q}\nspec: {slo: {claimLatency: {thresholdMs: 5}}}\n";
    let up = Up::start(Vec::new(), false, manifest).expect("brisq up");
    let drawn = shown(&mut browser, &up.program.listen, "up", false);
    for text in ["no claims yet", "objective p99<5ms · "] {
        assert!(drawn.contains(text), "{text}: {drawn}");
    }
    assert!(!drawn.contains("NaN") && !drawn.contains("undefined"), "{drawn}");
}
