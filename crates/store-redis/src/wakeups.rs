//! Enqueues of other servers, by publish and subscribe: a shard that became non-empty is told to all who listen.

use std::collections::HashSet;
use std::time::Duration;

use brisq_model::Shard;
use brisq_store::Wake;
use futures_util::StreamExt;
use redis::Client;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::keys::{channel, shard_of};

/// Wake-ups that wait for the server; if it does not keep up, one [`Wake::Lost`] stands for the rest.
pub(crate) const WAKEUPS_PENDING_MAX: usize = 1_024;
/// Shards that wait to be subscribed to.
pub(crate) const LISTENS_PENDING_MAX: usize = 100_000;
/// Pause before connecting again.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// Keeps the subscription alive until nobody listens any more.
pub(crate) async fn run(client: Client, mut listens: mpsc::Receiver<Shard>, wakeups: mpsc::Sender<Wake>) {
    let mut shards = HashSet::new();
    let mut lost = false;
    while !wakeups.is_closed() {
        match subscribe(&client, &mut shards, &mut listens, &wakeups, &mut lost).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "the subscription to wake-ups ended");
                if !std::mem::replace(&mut lost, true) && wakeups.send(Wake::Lost).await.is_err() {
                    return;
                }
                sleep(RECONNECT_DELAY).await;
            }
        }
    }
}

/// Listens until the connection ends (an error) or the server is gone.
async fn subscribe(
    client: &Client,
    shards: &mut HashSet<Shard>,
    listens: &mut mpsc::Receiver<Shard>,
    wakeups: &mpsc::Sender<Wake>,
    lost: &mut bool,
) -> redis::RedisResult<()> {
    let (mut sink, mut messages) = client.get_async_pubsub().await?.split();
    for shard in shards.iter() {
        sink.subscribe(channel(*shard)).await?;
    }
    if std::mem::replace(lost, false) && wakeups.send(Wake::Restored).await.is_err() {
        return Ok(());
    }
    loop {
        tokio::select! {
            shard = listens.recv() => match shard {
                Some(shard) => {
                    if shards.insert(shard) {
                        sink.subscribe(channel(shard)).await?;
                        // What was enqueued between the first look and this subscription was told to nobody.
                        tell(wakeups, Wake::Ready(shard));
                    }
                }
                None => return Ok(()),
            },
            message = messages.next() => match message {
                Some(message) => {
                    if let Some(shard) = shard_of(message.get_channel_name()) {
                        tell(wakeups, Wake::Ready(shard));
                    }
                }
                None => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            },
        }
    }
}

/// A wake-up that finds no room is not lost on anybody who matters: the server that cannot keep up is awake, and each
/// store answer tells it of ready tasks.
fn tell(wakeups: &mpsc::Sender<Wake>, wake: Wake) {
    if let Err(error) = wakeups.try_send(wake) {
        tracing::debug!(%error, "the server does not keep up with wake-ups");
    }
}
