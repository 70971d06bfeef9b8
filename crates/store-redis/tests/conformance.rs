//! The conformance suite on Redis, and its agreement with the reference.

use std::sync::{Arc, Mutex, Weak};

use brisq_store::{Store, conformance::follows_the_model};
use brisq_store_redis::RedisStore;
use brisq_testkit::{Redis, RedisOptions};

/// One Redis for all cases that run at a time: each has a queue of its own. It ends with the last of them.
static REDIS: Mutex<Weak<Redis>> = Mutex::new(Weak::new());

async fn open() -> (Arc<dyn Store>, Arc<Redis>) {
    let redis = {
        let mut shared = REDIS.lock().expect("no case panics here");
        shared.upgrade().unwrap_or_else(|| {
            let options = RedisOptions { appendfsync: "no", ..RedisOptions::default() };
            let redis = Arc::new(Redis::start(options).expect("a Redis"));
            *shared = Arc::downgrade(&redis);
            redis
        })
    };
    (Arc::new(RedisStore::connect(&[redis.url()]).await.expect("a store")), redis)
}

brisq_store::conformance!(open);

#[tokio::test]
async fn random_walks_agree_with_the_reference() {
    let (store, _redis) = open().await;
    for seed in 1..=4 {
        follows_the_model(Arc::clone(&store), seed).await;
    }
}
