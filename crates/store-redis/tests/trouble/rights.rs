//! Users that lack rights, and passwords that are wrong.

use brisq_store_redis::ConnectError;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::*;

const PASSWORD: &str = "hunter2secret";
const PAGE: &str = include_str!("../../../../docs/redis.md");

/// The documented line.
fn line() -> String {
    let line =
        PAGE.lines().find(|line| line.starts_with("ACL SETUSER brisq ")).expect("the page has the line");
    line.replace("PASSWORD", PASSWORD)
}

fn user(redis: &Redis, line: &str) {
    assert_eq!(redis.command(line).unwrap(), "+OK", "{line}");
}

async fn connect_as(redis: &Redis, name: &str) -> Result<RedisStore, ConnectError> {
    RedisStore::connect(&[redis.url_of(name, PASSWORD)]).await
}

#[tokio::test]
async fn the_documented_rights_suffice() {
    let redis = start(&[]);
    user(&redis, &line());
    let store: Arc<dyn Store> = Arc::new(connect_as(&redis, "brisq").await.unwrap());
    store.ready().await.unwrap();
    assert!(store.describe().contains("appendfsync always"), "{}", store.describe());
    follows_the_model(Arc::clone(&store), 3).await;
    let other: Arc<dyn Store> = Arc::new(connect_as(&redis, "brisq").await.unwrap());
    let own = || Queue::shared(vec![Arc::clone(&store), Arc::clone(&other)]);
    cases::queues_are_listed_page_by_page(&own().await).await;
    cases::retention_is_swept_without_a_call(&own().await).await;
    cases::an_existing_task_is_answered_without_what_may_be_large(&own().await).await;
    cases::equal_due_times_keep_the_order_of_their_enqueues(&own().await).await;
    cases::a_deleted_queue_is_gone_with_all_that_was_kept(&own().await).await;
    brisq_store::conformance::wakeup_cases::a_queue_that_opens_is_told(&own().await).await;
    let third = Queue::new(Arc::new(connect_as(&redis, "brisq").await.unwrap()));
    brisq_store::conformance::wakeup_cases::a_queue_that_is_deleted_is_told(&third.await).await;
}

/// Whatever is missing is named by readiness, and until it is there nothing is written.
#[tokio::test]
async fn a_missing_right_is_named_and_nothing_is_written() {
    let redis = start(&[]);
    for (name, rights, named) in [
        (
            "channels",
            "~* +@all",
            "+publish &{q*, +subscribe &{q*, +publish &{brisq}:*, +subscribe &{brisq}:*",
        ),
        ("zadd", "~* &* +@all -zadd", "+zadd ~{q*, +zadd ~{brisq}:*"),
        ("unlink", "~* &* +@all -unlink", "+unlink ~{q*"),
        ("shards", "~{brisq}:* &* +@all", "+hset ~{q*"),
        ("registry", "~{q* &* +@all", "{brisq}:"),
        ("library", "~* &* +@all -function", "function"),
        ("calls", "~* &* +@all -fcall", "fcall"),
    ] {
        user(&redis, &format!("ACL SETUSER {name} on >{PASSWORD} {rights}"));
        let store: Arc<dyn Store> = Arc::new(connect_as(&redis, name).await.unwrap());
        let error = store.ready().await.unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("docs/redis.md"), "{name}: {error}");
        let (tenant, queue) = (TenantName::new("t").unwrap(), QueueName::new("q").unwrap());
        assert!(store.open_queue(&tenant, &queue).await.is_err(), "{name}");
        assert_eq!(redis.command("DBSIZE").unwrap(), ":0", "{name}");
    }
}

#[tokio::test]
async fn without_dangerous_commands_settings_are_unknown_and_the_queue_works() {
    let redis = start(&[]);
    user(&redis, &format!("ACL SETUSER app on >{PASSWORD} ~* &* +@all -@dangerous"));
    let store: Arc<dyn Store> = Arc::new(connect_as(&redis, "app").await.unwrap());
    store.ready().await.unwrap();
    assert!(store.describe().contains("persistence unknown"), "{}", store.describe());
    let queue = queue(&store).await;
    add(&store, &queue, task(queue.shard(), 0, 10)).await;
    assert_eq!(claimed(&store, &queue, claim(5)).await.len(), 1);
}

#[tokio::test]
async fn a_right_that_is_taken_away_for_a_while_stops_calls_for_that_while() {
    let redis = start(&[]);
    user(&redis, &line());
    let store: Arc<dyn Store> = Arc::new(connect_as(&redis, "brisq").await.unwrap());
    let queue = queue(&store).await;
    user(&redis, "ACL SETUSER brisq -zadd");
    let enqueue = async || {
        store.enqueue(&queue, vec![NewTask { id: fresh(queue.shard()), ..task(queue.shard(), 0, 10) }]).await
    };
    pause(1_500).await;
    let error = enqueue().await.unwrap_err().to_string();
    assert!(error.contains("+zadd ~{q*"), "{error}");
    assert_eq!(redis.command(&format!("EXISTS {{q{}.0}}:body", queue.number.get())).unwrap(), ":0");
    user(&redis, "ACL SETUSER brisq +zadd");
    soon("enqueued", async || enqueue().await.is_ok()).await;
}

#[tokio::test]
async fn a_wrong_password_is_called_that_and_never_shown() {
    let redis = start(&[]);
    user(&redis, &format!("ACL SETUSER app on >other{PASSWORD} ~* &* +@all"));
    let refused = connect_as(&redis, "app").await.unwrap_err();
    assert!(matches!(refused, ConnectError::WrongPassword), "{refused:?}");
    let asked = start(&[]);
    user(&asked, &format!("CONFIG SET requirepass {PASSWORD}"));
    let missing = RedisStore::connect(&[asked.url()]).await.unwrap_err();
    assert!(matches!(missing, ConnectError::WrongPassword), "{missing:?}");
    for url in [
        "http://:hunter2secret@h",
        "redis://:hunter2secret@h:port",
        "redis://u:hunter2secret@h/db",
        "rediss://:hunter2secret@h",
    ] {
        let error = RedisStore::connect(&[url.to_owned()]).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{url}: {error:?}");
    }
    assert!(!format!("{refused} {refused:?} {missing:?}").contains(PASSWORD));
}

/// The password changes under a running server and back again: it is told, and all goes on.
#[tokio::test]
async fn a_password_that_changes_for_a_while_stops_calls_for_that_while() {
    let redis = start(&[]);
    user(&redis, &line());
    let store = connect_as(&redis, "brisq").await.unwrap();
    store.ready().await.unwrap();
    user(&redis, "ACL SETUSER brisq resetpass >another");
    assert_eq!(redis.command("CLIENT KILL USER brisq").unwrap().chars().next(), Some(':'));
    let refused = "refuses the password";
    soon("refused", async || store.ready().await.is_err_and(|error| error.to_string().contains(refused)))
        .await;
    user(&redis, &line());
    soon("ready", async || store.ready().await.is_ok()).await;
}

/// Counts warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicU64>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A cause that lasts is one line, not one for each try; and a Redis that is there in the end is used.
#[tokio::test]
async fn a_start_that_waits_for_the_right_password_says_so_once() {
    let redis = start(&[]);
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let urls = [redis.url_of("brisq", PASSWORD)];
    let waiting = tokio::spawn(async move { RedisStore::connect_when_it_answers(&urls).await });
    pause(3_500).await;
    assert_eq!(warnings.0.load(Ordering::Relaxed), 1);
    user(&redis, &line());
    let store = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().unwrap();
    store.ready().await.unwrap();
}
