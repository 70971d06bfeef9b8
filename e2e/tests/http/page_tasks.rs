//! The page's views of a queue's tasks and of one task, by keyboard alone.

use brisq_testkit::Browser;

use super::many;
use super::page::{SHOWN, TOKENS, pictures};
use super::*;

/// What a task says that is read as markup where it is not shown as text.
const MARKUP: &str = "<img src=x onerror=\"document.title='read as markup'\">";
/// Presses that every element of a page is reached with.
const TABS_MAX: usize = 150;

/// A server, and a browser that looks at its page.
struct Looked {
    http: Http,
    browser: Browser,
    address: String,
    _server: Server,
}

impl Looked {
    /// Opens a view once `prepare` has made what it shows.
    fn at(hash: &str, prepare: impl Fn(&mut Http)) -> Self {
        let server = Server::start(Store::Embedded, &[]).expect("a server");
        let mut http = server.program.http().expect("a connection");
        prepare(&mut http);
        let address = format!("http://{}/", server.program.listen);
        let mut browser = Browser::start().expect("a browser");
        browser.open(&format!("{address}{hash}"), false).expect("it opens");
        Self { http, browser, address, _server: server }
    }

    #[track_caller]
    fn until(&mut self, shown: &str) {
        self.browser.wait_until(shown, SHOWN).expect(shown);
    }

    /// Until the element shows a text, wherever its lines end.
    #[track_caller]
    fn until_text(&mut self, of: &str, text: &str) {
        let shown = format!("document.querySelector('{of}').innerText.replace(/\\s+/g, ' ')");
        self.until(&format!("{shown}.includes({})", json!(text)));
    }

    /// Goes on by this key until the focus is on an element that is meant, then presses Enter.
    #[track_caller]
    fn enter_by(&mut self, key: &str, selector: &str) {
        let there = format!("document.activeElement.matches({})", json!(selector));
        let is_there = |_: &usize| {
            self.browser.press(key).expect("pressed");
            self.browser.evaluate(&there).expect("an answer") == true
        };
        assert!((0..TABS_MAX).find(is_there).is_some(), "the keyboard does not reach {selector}");
        self.enter();
    }

    #[track_caller]
    fn enter(&mut self) {
        self.browser.press("Enter").expect("pressed");
    }

    fn count(&mut self, state: &str) -> u64 {
        let queue = ok(get(&mut self.http, "/v1/queues/orders"), 200);
        queue["counts"][state].as_u64().expect("a count")
    }
}

/// Enqueues so many tasks and fails each for good.
fn dead_letters(http: &mut Http, kind: &str, count: usize) {
    for n in 0..count {
        enqueue(
            http,
            "orders",
            &json!({"payload": {"n": n, "big": 12_345_678_901_234_567_890_u64, "note": MARKUP}}),
        );
        let (id, token) = lease(&claim(http, "orders", &json!({"worker": "w-1"})).remove(0));
        let error = json!({"message": format!("{MARKUP} no answer from the shop"), "kind": kind});
        let fail = json!({"token": token, "error": error, "retryable": false});
        ok(post(http, &format!("/v1/tasks/{id}/fail"), &fail), 200);
    }
}

#[test]
fn tasks_of_a_queue_are_looked_at_by_keyboard() {
    let mut page = Looked::at("", |http| {
        dead_letters(http, "timeout", 2);
        let tasks: Vec<Value> = (0..60).map(|n| json!({"payload": n})).collect();
        ok(post(http, "/v1/queues/orders/tasks", &json!({"tasks": tasks})), 200);
        enqueue(http, "orders", &json!({"payload": 1, "delayMs": 60_000}));
        claim(http, "orders", &json!({}));
    });
    page.until("document.querySelector('#queues a') !== null");
    page.enter_by("Tab", "#queues a");
    page.until("!document.querySelector('#queue').hidden && document.activeElement.id === 'queue-title'");
    page.until_text(
        "#states",
        "delayed 1 blocked 0 ready 59 leased 1 completed 0 failed 0 dead 2 cancelled 0",
    );
    page.until("document.querySelector('#tasks').rows.length === 50");
    let why = "document.querySelector('#queue-why a').getAttribute('href')";
    let why = page.browser.evaluate(why).expect("a link").as_str().expect("a text").to_owned();
    assert!(get(&mut page.http, &why).text().contains("## What to do"), "{why}");

    // What comes behind is shown behind, where the keyboard then is.
    page.enter_by("Tab", "#more-tasks");
    page.until("document.activeElement === document.querySelector('#tasks').rows[50].querySelector('a')");
    page.until(
        "document.querySelector('#tasks').rows.length === 59 && document.querySelector('#more-tasks').hidden",
    );
    pictures(&mut page.browser, "queue");

    page.enter_by("Shift+Tab", "[href='#queues/orders/dead']");
    page.until_text("#tasks", "non_retryable");
    page.until("document.activeElement.matches('[aria-current]') && location.hash === '#queues/orders/dead'");
    page.until_text("#tasks", "onerror=\"document.title");
    pictures(&mut page.browser, "queue-dead");

    page.enter_by("Tab", "#tasks a");
    page.until("document.activeElement.id === 'task-title'");
    let events = "[...document.querySelectorAll('#timeline b')].map(e => e.innerText).join()";
    assert_eq!(page.browser.evaluate(events).expect("events"), "enqueued,claimed,failed,dead");
    page.until_text("#timeline", "attempt 1 · by w-1 · timeout · <img");
    page.until_text("#task-why", "finished It has ended: dead (non_retryable).");
    page.until_text("#evidence", "no answer from the shop");
    page.until_text("#fields", "\"big\": 12345678901234567890,");
    page.until("document.querySelector('#cancel').hidden && document.querySelector('main img') === null");
    pictures(&mut page.browser, "task");

    // Back is where one was, and a reload shows the same.
    page.browser.evaluate("window.history.back()").expect("it goes back");
    page.until("document.activeElement.matches('#tasks a') && document.querySelector('#task').hidden");
    page.browser.evaluate("location.reload()").expect("it reloads");
    page.until_text("#tasks", "non_retryable");
    page.enter_by("Tab", "#path a");
    page.until("document.activeElement.matches('#queues a') && document.querySelector('#queue').hidden");
    page.until("document.title === 'Brisq'");
}

#[test]
fn dead_letters_come_back_once_they_are_counted() {
    let mut page = Looked::at("#queues/orders/dead", |http| {
        dead_letters(http, "timeout", 3);
        dead_letters(http, "bad_address", 2);
    });
    let (open, closed) =
        ("document.querySelector('#redrive-ask').open", "!document.querySelector('#redrive-ask').open");
    let refused = "document.querySelector('#redrive-do').disabled";
    page.until_text("#states", "dead 5");
    page.enter_by("Tab", "#redrive");
    page.until(&format!("{open} && {refused} && document.activeElement.id === 'redrive-kind'"));
    page.browser.write("timeou").expect("typed");
    page.enter();
    page.until_text("#redrive-said", "0 dead tasks match.");
    page.until(refused);
    page.browser.write("t").expect("typed");
    page.until_text("#redrive-said", "Count first");
    page.enter();
    page.until_text("#redrive-said", "3 dead tasks match.");
    page.until_text("#redrive-do", "Redrive 3");
    pictures(&mut page.browser, "redrive");
    assert_eq!(page.count("dead"), 5, "it was counted");
    page.enter_by("Tab", "#redrive-do");
    page.until(closed);
    page.until_text("#said", "Redriven 3 dead tasks.");
    page.until_text("#states", "dead 2");
    assert_eq!((page.count("ready"), page.count("dead")), (3, 2));

    // What the server refuses, it says; a rate that it takes, it keeps.
    page.until("document.activeElement.id === 'redrive'");
    page.enter();
    page.until(open);
    page.browser.evaluate("document.querySelector('#redrive-kind').value = ''").expect("emptied");
    page.browser.evaluate("document.querySelector('#redrive-rate').focus()").expect("focused");
    page.browser.write("0").expect("typed");
    page.enter();
    page.until_text("#redrive-said", "`ratePerSecond` is 0.001 to 10000.");
    page.browser.write(".01").expect("typed");
    page.enter();
    page.until_text("#redrive-do", "Redrive 2");
    page.enter_by("Tab", "#redrive-do");
    page.until_text("#said", "Redriven 2 dead tasks, 0.01 a second.");
    assert_eq!((page.count("ready"), page.count("delayed"), page.count("dead")), (4, 1, 0));
}

/// One call looks at ten thousand of them, the last to die first.
#[test]
fn dead_letters_behind_ten_thousand_others_are_counted_and_come_back() {
    let mut page = Looked::at("#queues/orders/dead", |http| {
        dead_letters(http, "timeout", 2);
        for _ in 0..11 {
            many::dead_letters(http, "orders", "bad_address", 1_000);
        }
    });
    page.until_text("#states", "dead 11002");
    page.enter_by("Tab", "#redrive");
    page.until("document.activeElement.id === 'redrive-kind'");
    page.browser.write("timeout").expect("typed");
    page.enter();
    page.until_text("#redrive-said", "2 dead tasks match.");
    page.enter_by("Tab", "#redrive-do");
    page.until_text("#said", "Redriven 2 dead tasks.");
    assert_eq!((page.count("ready"), page.count("dead")), (2, 11_000));
}

#[test]
fn a_purge_and_a_cancel_are_asked_for_twice() {
    let mut page = Looked::at("#queues/orders/dead", |http| {
        dead_letters(http, "timeout", 2);
        enqueue(http, "orders", &json!({"payload": "x".repeat(40_000)}));
    });
    let (open, closed) = ("document.querySelector('#ask').open", "!document.querySelector('#ask').open");
    page.until_text("#states", "dead 2");
    page.enter_by("Tab", "#purge");
    page.until(open);
    page.until_text("#ask", "Purge 2 dead tasks of orders?");
    pictures(&mut page.browser, "purge");
    // A second Enter by oversight changes nothing.
    page.enter();
    page.until(&format!("{closed} && document.activeElement.id === 'purge'"));
    assert_eq!(page.count("dead"), 2);
    page.enter();
    page.until(open);
    page.enter_by("Shift+Tab", "#ask-do");
    page.until_text("#said", "Purged 2 dead tasks.");
    page.until_text("#states", "dead 0");
    assert_eq!((page.count("ready"), page.count("dead")), (1, 0));
    page.enter_by("Tab", "#purge");
    page.until_text("#said", "There is no dead task to purge.");

    page.enter_by("Shift+Tab", "[href='#queues/orders/ready']");
    page.until("document.querySelector('#tasks').rows.length === 1");
    page.enter_by("Tab", "#tasks a");
    page.until_text("#fields", "… and more: GET /v1/tasks/");
    page.enter_by("Tab", "#cancel");
    page.until(open);
    page.enter_by("Shift+Tab", "#ask-do");
    page.until_text("#said", "It is cancelled.");
    page.until("document.activeElement.id === 'task-title'");
    pictures(&mut page.browser, "cancelled");
    assert_eq!(page.count("cancelled"), 1);

    let missing = format!("{}#queues/nowhere", page.address);
    page.browser.open(&missing, false).expect("it opens");
    page.until_text("#said", "The queue was never used");
}

#[test]
fn the_page_says_what_a_token_may_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.yaml");
    std::fs::write(&file, TOKENS).expect("written");
    let server =
        Server::start(Store::Embedded, &["--tokens", &file.display().to_string()]).expect("a server");
    let mut http = server.program.http().expect("a connection").with_token("a");
    enqueue(&mut http, "orders", &json!({"payload": 1}));
    let mut browser = Browser::start().expect("a browser");
    browser.token("a").expect("a header");
    browser.open(&format!("http://{}/#queues/orders", server.program.listen), false).expect("it opens");
    browser.wait_until("document.querySelector('#tasks').rows.length === 1", SHOWN).expect("its task");
    browser.evaluate("document.querySelector('#purge').click()").expect("clicked");
    let refused = "document.querySelector('#said').innerText === 'purge orders: The token lacks the scope `admin`. Use a token that has it.'";
    browser.wait_until(refused, SHOWN).expect(refused);
    assert_eq!(browser.evaluate("document.querySelector('#ask').open").expect("an answer"), false);
}
