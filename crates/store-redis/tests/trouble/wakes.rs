//! Wake-ups that get lost on the way.

use brisq_store::Wake;
use brisq_testkit::Forwarder;
use tokio::sync::mpsc::Receiver;

use super::*;

async fn hears(wakes: &mut Receiver<Wake>, expected: &Wake) {
    let heard = tokio::time::timeout(Duration::from_secs(15), async {
        while let Some(wake) = wakes.recv().await {
            if wake == *expected {
                return true;
            }
        }
        false
    });
    assert!(heard.await.unwrap_or(false), "nobody told {expected:?}");
}

/// A server that does not keep up hears that it missed some.
#[tokio::test]
async fn wakeups_that_find_no_room_are_told_to_be_lost() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    let mut wakes = store.wakeups().unwrap();
    store.listen(queue.shard());
    hears(&mut wakes, &Wake::Ready(queue.shard())).await;
    let mut messages = redis::pipe();
    for _ in 0..3_000 {
        messages.cmd("PUBLISH").arg(key(&queue, "wake")).arg("").ignore();
    }
    messages.exec(&mut plainly(&redis)).unwrap();
    pause(500).await;
    hears(&mut wakes, &Wake::Lost).await;
    hears(&mut wakes, &Wake::Restored).await;
    add(&store, &queue, task(queue.shard(), 0, 1)).await;
    hears(&mut wakes, &Wake::Ready(queue.shard())).await;
}

/// A subscription that is cut, and one whose peer is gone without a word, while calls go on as ever.
#[tokio::test]
async fn a_subscription_that_dies_is_made_anew() {
    let redis = start(&[]);
    let door = Forwarder::to(redis.port()).unwrap();
    let url = format!("redis://127.0.0.1:{}", door.port());
    let store: Arc<dyn Store> = Arc::new(RedisStore::connect(&[url]).await.unwrap());
    let queue = queue(&store).await;
    let mut wakes = store.wakeups().unwrap();
    store.listen(queue.shard());
    hears(&mut wakes, &Wake::Ready(queue.shard())).await;
    for silent in [false, true] {
        if silent {
            let made = door.connections();
            door.swallow(made - 1..made);
        } else {
            redis.command("CLIENT KILL TYPE pubsub").unwrap();
        }
        hears(&mut wakes, &Wake::Lost).await;
        hears(&mut wakes, &Wake::Restored).await;
        add(&store, &queue, task(queue.shard(), 0, 1)).await;
        hears(&mut wakes, &Wake::Ready(queue.shard())).await;
        assert_eq!(claimed(&store, &queue, claim(5)).await.len(), 1);
    }
}
