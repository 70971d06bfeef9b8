//! The conformance suite on Redis, and its agreement with the reference.

use std::sync::{Arc, Mutex, Weak};

use brisq_store::{
    Store,
    conformance::{Queue, walks_agree},
};
use brisq_store_redis::RedisStore;
use brisq_testkit::{Redis, RedisOptions};

/// One Redis for all cases that run at a time: each has a queue of its own. It ends with the last of them.
static REDIS: Mutex<Weak<Redis>> = Mutex::new(Weak::new());

async fn open(handles: usize) -> (Vec<Arc<dyn Store>>, Arc<Redis>) {
    let redis = {
        let mut shared = REDIS.lock().expect("no case panics here");
        shared.upgrade().unwrap_or_else(|| {
            let options = RedisOptions { appendfsync: "no", ..RedisOptions::default() };
            let redis = Arc::new(Redis::start(options).expect("a Redis"));
            *shared = Arc::downgrade(&redis);
            redis
        })
    };
    let mut all: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..handles {
        all.push(Arc::new(RedisStore::connect(&[redis.url()]).await.expect("a store")));
    }
    (all, redis)
}

mod one_handle {
    brisq_store::conformance!(super::open, 1);
    brisq_store::wakeups!(super::open, 1);
}

mod two_handles {
    brisq_store::conformance!(super::open, 2);
    brisq_store::wakeups!(super::open, 2);
}

#[tokio::test]
async fn random_walks_agree_with_the_reference() {
    for seed in 1..=12 {
        let handles = 1 + seed as usize % 2;
        let (stores, _redis) = open(handles).await;
        walks_agree(Queue::shared(stores).await, seed).await;
    }
}
