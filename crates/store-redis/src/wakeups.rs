//! What other servers did, by publish and subscribe: a shard became non-empty, something in it falls due earlier than
//! before, a queue was opened or deleted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use brisq_model::Shard;
use brisq_store::{QueueInfo, Wake};
use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::aio::PubSubSink;
use redis::{Client, Msg, RedisError};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::connect::{CONNECT_TIMEOUT, ConnectError};
use crate::keys::{OPENED, channel, shard_of};
use crate::registry;
use crate::said::Said;

/// Wake-ups that wait for the server; when it does not keep up, one [`Wake::Lost`] and one [`Wake::Restored`] stand for the
/// rest.
pub(crate) const WAKEUPS_PENDING_MAX: usize = 1_024;
/// Shards that wait to be subscribed to.
pub(crate) const LISTENS_PENDING_MAX: usize = 100_000;
/// Channels of one subscription.
const CHANNELS_AT_A_TIME: usize = 500;
/// How often the subscription is asked whether it lives: one to a peer that is gone, behind a proxy that is not, is silent for
/// ever.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Pause before connecting again.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// Shards whose wake-ups were asked for.
pub(crate) type Listening = Arc<Mutex<HashSet<Shard>>>;

/// Keeps the subscription alive until nobody listens any more, on the connections of whoever has the address of Redis: each
/// new connection for calls (`generations`) makes a new one for messages.
pub(crate) async fn run(
    client: Client,
    mut generations: watch::Receiver<u64>,
    listens: mpsc::Receiver<Shard>,
    wakeups: mpsc::Sender<Wake>,
    listening: Listening,
) {
    let shards = HashSet::new();
    let mut listener = Listener { shards, listening, listens, wakeups, lost: false, missed: false };
    let said = Said::default();
    while !listener.wakeups.is_closed() {
        generations.borrow_and_update();
        let end = listener.subscribe(&client, &mut generations, &said).await;
        let Err(error) = end else { return };
        let cause = ConnectError::from(error).to_string();
        if said.is_news(&cause) {
            tracing::warn!(error = cause, "the subscription to wake-ups ended; trying again");
        }
        if !std::mem::replace(&mut listener.lost, true) && listener.wakeups.send(Wake::Lost).await.is_err() {
            return;
        }
        sleep(RECONNECT_DELAY).await;
    }
}

struct Listener {
    /// Those that are subscribed to.
    shards: HashSet<Shard>,
    listening: Listening,
    listens: mpsc::Receiver<Shard>,
    wakeups: mpsc::Sender<Wake>,
    /// The server knows that messages may be missed.
    lost: bool,
    /// A message found no room, and the server does not know it yet.
    missed: bool,
}

impl Listener {
    /// Listens until the connection ends, or is not the right one any more (an error), or the server is gone.
    async fn subscribe(
        &mut self,
        client: &Client,
        generations: &mut watch::Receiver<u64>,
        said: &Said,
    ) -> Result<(), RedisError> {
        let (mut sink, mut messages) = in_time(client.get_async_pubsub()).await?.split();
        self.subscribe_to_all(&mut sink).await?;
        said.is_over();
        if std::mem::replace(&mut self.lost, false) && self.wakeups.send(Wake::Restored).await.is_err() {
            return Ok(());
        }
        let wakeups = self.wakeups.clone();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            tokio::select! {
                // To subscribe once more changes nothing and is answered.
                _ = heartbeat.tick() => in_time(sink.subscribe(OPENED)).await?,
                shard = self.listens.recv() => match shard {
                    Some(shard) => {
                        if self.shards.insert(shard) {
                            in_time(sink.subscribe(channel(shard))).await?;
                            // What was enqueued between the first look and this subscription was told to nobody.
                            self.tell(Wake::Ready(shard));
                        }
                    }
                    None => return Ok(()),
                },
                message = messages.next() => match message {
                    Some(message) => {
                        if let Some(deleted) = self.pass_on(&message) {
                            in_time(sink.unsubscribe(channel(deleted))).await?;
                        }
                    }
                    None => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                },
                changed = generations.changed() => {
                    let text = if changed.is_ok() { "Redis was connected to anew" } else { "the store was closed" };
                    return Err(std::io::Error::other(text).into());
                }
                room = wakeups.reserve_many(2), if self.missed => {
                    let Ok(mut room) = room else { return Ok(()) };
                    for wake in [Wake::Lost, Wake::Restored] {
                        if let Some(place) = room.next() {
                            place.send(wake);
                        }
                    }
                    drop(room);
                    self.missed = false;
                }
            }
        }
    }

    async fn subscribe_to_all(&self, sink: &mut PubSubSink) -> Result<(), RedisError> {
        in_time(sink.subscribe(OPENED)).await?;
        let channels: Vec<String> = self.shards.iter().map(|shard| channel(*shard)).collect();
        for some in channels.chunks(CHANNELS_AT_A_TIME) {
            in_time(sink.subscribe(some)).await?;
        }
        Ok(())
    }

    /// Answers the shard that nobody needs to listen to any more.
    fn pass_on(&mut self, message: &Msg) -> Option<Shard> {
        let Some(wake) = wake_of(message.get_channel_name(), message.get_payload_bytes()) else {
            tracing::debug!(channel = message.get_channel_name(), "a message that is not understood");
            return None;
        };
        let deleted = match &wake {
            Wake::Deleted(info) => Some(info.shard()),
            _ => None,
        };
        self.tell(wake);
        let deleted = deleted.filter(|shard| self.shards.remove(shard))?;
        self.listening.lock().remove(&deleted);
        Some(deleted)
    }

    fn tell(&mut self, wake: Wake) {
        if self.wakeups.try_send(wake).is_err() {
            self.missed = true;
        }
    }
}

/// What a message says. Without a text it says that the shard became non-empty, else in how many ms something falls due.
fn wake_of(channel: &str, text: &[u8]) -> Option<Wake> {
    let text = std::str::from_utf8(text).ok()?;
    if channel == OPENED {
        // A version that knows no deletions reads no number here, and leaves the message alone.
        let deleted = text.strip_prefix("deleted ");
        return deleted.map_or_else(|| queue(text).map(Wake::Opened), |text| queue(text).map(Wake::Deleted));
    }
    let shard = shard_of(channel)?;
    match text {
        "" => Some(Wake::Ready(shard)),
        ms => Some(Wake::Due(shard, Duration::from_millis(ms.parse().ok()?))),
    }
}

fn queue(text: &str) -> Option<QueueInfo> {
    let (number, path) = text.split_once(' ')?;
    registry::info(path, number.parse().ok()?).ok()
}

/// A peer that is gone answers nothing, and the kernel tries for minutes.
async fn in_time<T>(step: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    timeout(CONNECT_TIMEOUT, step)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

#[cfg(test)]
mod tests {
    use brisq_model::QueueNumber;

    use super::*;

    #[test]
    fn messages_say_what_happened() {
        let shard = Shard::first(QueueNumber::new(7).unwrap());
        assert_eq!(wake_of("{q7.0}:wake", b""), Some(Wake::Ready(shard)));
        assert_eq!(wake_of("{q7.0}:wake", b"1500"), Some(Wake::Due(shard, Duration::from_millis(1_500))));
        assert_eq!(wake_of("{q7.0}:wake", b"x"), None);
        let Some(Wake::Opened(info)) = wake_of(OPENED, b"7 t/q") else { panic!("it was opened") };
        assert_eq!((info.shard(), info.tenant.as_str(), info.name.as_str()), (shard, "t", "q"));
        assert_eq!(wake_of(OPENED, b"0 t/q"), None);
        assert_eq!(wake_of(OPENED, b"deleted 7 t/q"), Some(Wake::Deleted(info)));
    }
}
