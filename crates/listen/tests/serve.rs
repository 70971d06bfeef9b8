//! A listener as clients of every kind meet it: real sockets, short limits.
#![expect(clippy::panic, clippy::unwrap_used, reason = "what fails in a test fails the test")]

use std::convert::Infallible;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use brisq_listen::{Connection, Limits, RequestBody, bind, serve};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use hyper::{Request, Response};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, interval, sleep, timeout};

/// Nothing in these tests takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than two sockets hold.
const HUGE: usize = 64 << 20;

fn short() -> Limits {
    Limits {
        connections_max: 8,
        beyond_max: 2,
        header_timeout: Duration::from_millis(500),
        idle_timeout: Duration::from_millis(1_500),
        write_timeout: Duration::from_secs(1),
        unread_timeout: Duration::from_secs(3),
        drain_deadline: Duration::from_secs(2),
    }
}

/// A body of so many ticks, 300 ms apart.
struct Ticks(u32, Interval);

impl Body for Ticks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        ready!(self.1.poll_tick(cx));
        self.0 -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"tick")))))
    }
}

/// How long the work of `/act` and `/wait` takes.
const WORK: Duration = Duration::from_millis(700);
/// Paths of such work that has begun, and of what is done.
static BEGUN: Mutex<Vec<String>> = Mutex::new(Vec::new());
static DONE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Waits until a path is among them.
async fn until_in(paths: &Mutex<Vec<String>>, path: &str) {
    let is_in = || paths.lock().unwrap().iter().any(|one| one == path);
    let waits = async {
        while !is_in() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waits).await.expect(path);
}

/// Work on a body that came whole; only an act is for more than its client.
async fn work(request: Request<RequestBody>) -> String {
    let path = request.uri().path().to_owned();
    let connection = request.extensions().get::<Connection>().unwrap().clone();
    let _carried_out = path.starts_with("/act").then(|| connection.carry_out());
    if request.into_body().collect().await.is_ok() {
        BEGUN.lock().unwrap().push(path.clone());
        sleep(WORK).await;
        DONE.lock().unwrap().push(path);
    }
    "done".to_owned()
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn handler(request: Request<RequestBody>) -> Result<Answer, Infallible> {
    let connection = request.extensions().get::<Connection>().unwrap().clone();
    let path = request.uri().path().to_owned();
    let text = |text: String| Full::new(Bytes::from(text)).boxed_unsync();
    let body = match path.as_str() {
        "/slow" => {
            sleep(Duration::from_millis(700)).await;
            text("slow".to_owned())
        }
        "/ticks" => Ticks(8, interval(Duration::from_millis(300))).boxed_unsync(),
        "/big" => text("x".repeat(4 << 20)),
        "/huge" => text("x".repeat(HUGE)),
        "/began" => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes().len());
            let age = connection.request().read.elapsed().as_millis();
            text(format!("{age} ms ago, {} bytes", body.unwrap_or_default()))
        }
        "/panics" => panic!("a mistake of ours"),
        _ if path.starts_with("/act") || path.starts_with("/wait") => text(work(request).await),
        _ => text("ok".to_owned()),
    };
    Ok(Response::new(body))
}

struct Door {
    address: SocketAddr,
    shutdown: watch::Sender<bool>,
    serving: JoinHandle<usize>,
}

async fn door(limits: Limits) -> Door {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, until) = watch::channel(false);
    let serving = tokio::spawn(serve(listener, tower::service_fn(handler), limits, until));
    Door { address, shutdown, serving }
}

impl Door {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n")
}

/// What comes until `enough` is in it, or the end.
async fn read_until(stream: &mut TcpStream, enough: &str) -> String {
    let mut got = Vec::new();
    let mut part = [0; 65_536];
    while enough.is_empty() || !String::from_utf8_lossy(&got).contains(enough) {
        match timeout(PATIENCE, stream.read(&mut part)).await.expect("an answer in time") {
            Ok(0) | Err(_) => break,
            Ok(read) => got.extend_from_slice(part.get(..read).unwrap()),
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

async fn ask(stream: &mut TcpStream, path: &str, enough: &str) -> String {
    stream.write_all(get(path).as_bytes()).await.unwrap();
    read_until(stream, enough).await
}

#[tokio::test]
async fn requests_in_one_packet_are_each_answered_with_a_byte_behind_the_last() {
    let door = door(short()).await;
    let mut stream = door.connect().await;
    let post = "POST /began HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n{}\r\n";
    stream.write_all((get("/").repeat(50) + post).as_bytes()).await.unwrap();
    let got = read_until(&mut stream, "2 bytes").await;
    assert_eq!(got.matches("HTTP/1.1 200 OK").count(), 51, "{got}");
    sleep(Duration::from_millis(700)).await;
    assert!(ask(&mut stream, "/", "ok").await.contains("200"), "the line end behind the body began no head");
}

#[tokio::test]
async fn a_refusal_is_an_answer_also_behind_a_valid_request() {
    let door = door(short()).await;
    let long = "a".repeat(20_000);
    for (name, bytes, status) in [
        ("no method", "\u{1}\u{2} / HTTP/1.1\r\n\r\n".to_owned(), "400 Bad Request"),
        (
            "two lengths",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
            "400 ",
        ),
        ("a long path", format!("GET /{long} HTTP/1.1\r\n\r\n"), "414 URI Too Long"),
        ("a longer path", format!("GET /{} HTTP/1.1\r\n\r\n", long.repeat(5)), "414 URI Too Long"),
        ("a long field", format!("GET / HTTP/1.1\r\na: {long}\r\n\r\n"), "431 "),
        ("many fields", format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)), "431 "),
    ] {
        for behind in [false, true] {
            let mut stream = door.connect().await;
            if behind {
                assert!(ask(&mut stream, "/", "ok").await.contains("200 OK"));
            }
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let got = read_until(&mut stream, "").await;
            assert!(got.starts_with(&format!("HTTP/1.1 {status}")), "{name}, behind: {behind}: {got}");
            assert!(got.contains(r#"{"error":{"code":""#), "{name}: {got}");
        }
    }
}

#[tokio::test]
async fn http_2_is_refused_in_its_own_words() {
    let door = door(short()).await;
    let mut stream = door.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut got = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got.get(..9).unwrap(), [0, 0, 0, 4, 0, 0, 0, 0, 0], "SETTINGS");
    assert_eq!((got[12], got[25]), (7, 0xd), "GOAWAY, HTTP_1_1_REQUIRED: {got:?}");
    let mut upgrading = door.connect().await;
    let head = "GET / HTTP/1.1\r\nhost: t\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n";
    upgrading.write_all(head.as_bytes()).await.unwrap();
    assert!(read_until(&mut upgrading, "ok").await.starts_with("HTTP/1.1 200 OK"));
    assert!(ask(&mut upgrading, "/", "ok").await.starts_with("HTTP/1.1 200 OK"), "and goes on");
}

#[tokio::test]
async fn each_phase_ends_in_time_and_a_long_answer_does_not() {
    let door = door(short()).await;
    let (mut slow_head, mut idle, mut ticks, mut ahead) =
        (door.connect().await, door.connect().await, door.connect().await, door.connect().await);
    let began = Instant::now();
    slow_head.write_all(b"GET /").await.unwrap();
    assert!(ask(&mut idle, "/", "ok").await.contains("200"));
    ticks.write_all(get("/ticks").as_bytes()).await.unwrap();
    let got = read_until(&mut slow_head, "").await;
    assert!(got.starts_with("HTTP/1.1 408") && got.contains("request_timeout"), "{got}");
    assert!(began.elapsed() >= Duration::from_millis(500));
    sleep(Duration::from_millis(400)).await;
    assert!(
        ask(&mut ahead, "/", "ok").await.contains("200"),
        "opened ahead, it may wait as long as an idle one"
    );
    assert_eq!(read_until(&mut idle, "").await, "");
    assert!(began.elapsed() >= Duration::from_millis(1_500));
    let got = read_until(&mut ticks, "\r\n0\r\n").await;
    assert_eq!(got.matches("tick").count(), 8, "its body lasted longer than an idle connection may: {got}");
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_given_up() {
    let door = door(Limits { connections_max: 1, beyond_max: 0, ..short() }).await;
    let mut deaf = door.connect().await;
    deaf.write_all(get("/big").repeat(10).as_bytes()).await.unwrap();
    let began = Instant::now();
    let mut next = door.connect().await;
    assert!(ask(&mut next, "/", "ok").await.contains("200"), "its place is free");
    assert!(began.elapsed() >= Duration::from_millis(900));
}

#[tokio::test]
async fn an_answer_that_is_read_by_drops_is_given_up() {
    let limits = Limits { write_timeout: PATIENCE, idle_timeout: PATIENCE, ..short() };
    let door = door(limits).await;
    let mut slow = door.connect().await;
    let began = Instant::now();
    slow.write_all(get("/huge").as_bytes()).await.unwrap();
    let (mut part, mut got) = (vec![0; 65_536], 0);
    loop {
        match timeout(PATIENCE, slow.read(&mut part)).await.expect("an answer or its end") {
            Ok(0) | Err(_) => break,
            Ok(read) => got += read,
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(got < HUGE, "it was read to its end");
    assert!(began.elapsed() >= limits.unread_timeout, "{:?}", began.elapsed());
}

#[tokio::test]
async fn beyond_the_cap_probes_are_answered_and_all_else_is_refused() {
    let door = door(short()).await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut stream = door.connect().await;
        assert!(ask(&mut stream, "/", "ok").await.contains("200"));
        waiting.push(stream);
    }
    let mut probe = door.connect().await;
    for path in ["/healthz", "/readyz?verbose"] {
        assert!(ask(&mut probe, path, "ok").await.starts_with("HTTP/1.1 200 OK"));
    }
    let mut other = door.connect().await;
    let got = ask(&mut other, "/v1/queues", "").await;
    assert!(got.starts_with("HTTP/1.1 503 ") && got.contains("too_many_connections"), "{got}");
    assert!(got.contains("connection: close\r\n") && got.contains("retry-after: 1\r\n"), "{got}");
    waiting.clear();
    sleep(Duration::from_millis(100)).await;
    assert!(ask(&mut probe, "/v1/queues", "ok").await.contains("200"), "it moved below the cap");
}

#[tokio::test]
async fn silent_connections_keep_no_probe_out() {
    let door =
        door(Limits { beyond_max: 16, idle_timeout: PATIENCE, header_timeout: PATIENCE, ..short() }).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(door.connect().await);
    }
    let began = Instant::now();
    let mut probe = door.connect().await;
    assert!(ask(&mut probe, "/healthz", "ok").await.contains("200"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(ask(silent.first_mut().unwrap(), "/", "ok").await.contains("200"), "those below the cap stay");
    assert_eq!(read_until(silent.get_mut(9).unwrap(), "").await, "", "one beyond it gave way");
}

#[tokio::test]
async fn what_a_client_sends_slowly_is_not_the_servers_time() {
    let door = door(Limits { header_timeout: PATIENCE, ..short() }).await;
    let body = "POST /began HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n{}";
    for cuts in [&[][..], &[10], &[body.len() - 1], &[10, body.len() - 2, body.len() - 1]] {
        let mut stream = door.connect().await;
        sleep(Duration::from_millis(300)).await;
        let mut at = 0;
        for cut in cuts.iter().copied().chain([body.len()]) {
            stream.write_all(&body.as_bytes()[at..cut]).await.unwrap();
            at = cut;
            if cut < body.len() {
                sleep(Duration::from_millis(300)).await;
            }
        }
        let got = read_until(&mut stream, "bytes").await;
        let ms = got.lines().last().and_then(|line| line.split(' ').next()).unwrap();
        assert!(ms.parse::<u64>().unwrap() < 200, "cut at {cuts:?}: {got}");
    }
    let mut stream = door.connect().await;
    stream.write_all((get("/slow") + &get("/began")).as_bytes()).await.unwrap();
    let got = read_until(&mut stream, "bytes").await;
    let ms = got.lines().last().and_then(|line| line.split(' ').next()).unwrap();
    assert!(ms.parse::<u64>().unwrap() < 500, "it lay behind a slow one: {got}");
}

#[tokio::test]
async fn a_body_that_nobody_reads_does_not_cost_its_answer() {
    let door = door(short()).await;
    let mut stream = door.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 9000000\r\n\r\n").await.unwrap();
    let sent = stream.write_all(&vec![b'x'; 9_000_000]).await;
    assert!(read_until(&mut stream, "ok").await.contains("200 OK"), "sent: {sent:?}");
}

#[tokio::test]
async fn a_drain_answers_what_it_has_and_closes_the_rest() {
    let door = door(short()).await;
    let (mut busy, mut idle) = (door.connect().await, door.connect().await);
    assert!(ask(&mut idle, "/", "ok").await.contains("200"));
    busy.write_all(get("/slow").as_bytes()).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    door.shutdown.send(true).unwrap();
    assert_eq!(read_until(&mut idle, "").await, "");
    assert!(read_until(&mut busy, "").await.ends_with("slow"));
    assert_eq!(timeout(PATIENCE, door.serving).await.unwrap().unwrap(), 0, "nothing was cut");
    assert!(TcpStream::connect(door.address).await.is_err());
}

/// How a client ends its side of a connection.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    HalfClose,
    Close,
    Reset,
}

fn leave(stream: TcpStream, leaving: Leaving) -> Option<TcpStream> {
    match leaving {
        Leaving::HalfClose => SockRef::from(&stream).shutdown(Shutdown::Write).unwrap(),
        Leaving::Reset => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        Leaving::Close => {}
    }
    matches!(leaving, Leaving::HalfClose).then_some(stream)
}

/// Test and server share one thread: what a client does without waiting, the server finds together.
#[tokio::test]
async fn an_act_that_came_whole_is_carried_out_however_its_client_leaves() {
    let door = door(Limits { connections_max: 64, ..short() }).await;
    let (mut cases, mut open) = (Vec::new(), Vec::new());
    for leaving in [Leaving::HalfClose, Leaving::Close, Leaving::Reset] {
        // A reset throws away what is still on its way, of which there is much behind a large body.
        let sizes: &[usize] = if matches!(leaving, Leaving::Reset) { &[0, 2] } else { &[0, 2, 300_000] };
        for size in sizes {
            for when in ["before", "with", "after"] {
                for what in ["act", "wait"] {
                    let path = format!("/{what}/{size}/{leaving:?}/{when}");
                    let head = format!("POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {size}\r\n\r\n");
                    let request = [head.as_bytes(), &vec![b'x'; *size]].concat();
                    let (last, rest) = request.split_last().unwrap();
                    let mut stream = door.connect().await;
                    stream.write_all(rest).await.unwrap();
                    if when != "before" {
                        stream.write_all(&[*last]).await.unwrap();
                    }
                    if when == "after" {
                        until_in(&BEGUN, &path).await;
                    }
                    open.push(leave(stream, leaving));
                    cases.push((path, what == "act" && when != "before"));
                }
            }
        }
    }
    for (path, _) in cases.iter().filter(|(_, is_done)| *is_done) {
        until_in(&DONE, path).await;
    }
    // What is not to be done would be done by then.
    sleep(2 * WORK).await;
    let done = DONE.lock().unwrap().clone();
    for (path, is_done) in cases {
        assert_eq!(done.iter().filter(|one| **one == path).count(), usize::from(is_done), "{path}");
    }
}

#[tokio::test]
async fn what_is_carried_out_for_nobody_keeps_its_place_and_is_waited_for() {
    let door = door(Limits { connections_max: 1, beyond_max: 0, ..short() }).await;
    let mut stream = door.connect().await;
    let began = Instant::now();
    stream.write_all(b"POST /act/alone HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\n\r\n1").await.unwrap();
    leave(stream, Leaving::Close);
    let mut next = door.connect().await;
    assert!(ask(&mut next, "/", "ok").await.contains("200"));
    assert!(began.elapsed() >= WORK, "descriptors are bounded by places: {:?}", began.elapsed());
    next.write_all(b"POST /act/drained HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\n\r\n1").await.unwrap();
    leave(next, Leaving::Close);
    until_in(&BEGUN, "/act/drained").await;
    door.shutdown.send(true).unwrap();
    assert_eq!(timeout(PATIENCE, door.serving).await.unwrap().unwrap(), 0, "nothing was cut");
    assert!(DONE.lock().unwrap().contains(&"/act/drained".to_owned()));
}

#[tokio::test]
async fn a_handler_that_panics_is_answered_and_costs_its_own_connection() {
    let door = door(short()).await;
    let mut neighbour = door.connect().await;
    assert!(ask(&mut neighbour, "/", "ok").await.contains("200"));
    let got = ask(&mut door.connect().await, "/panics", "").await;
    for part in ["HTTP/1.1 500 ", "connection: close", r#""code":"internal""#, "Look before you repeat it."] {
        assert!(got.contains(part), "{part}: {got}");
    }
    assert!(ask(&mut neighbour, "/", "ok").await.contains("200"));
}
