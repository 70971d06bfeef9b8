//! Where a claim takes from: one queue, or several in order or by weight.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use rand::RngExt;

use crate::parking::Parked;
use crate::queue::Queue;

/// The queues of a claim.
#[derive(Debug)]
pub struct Sources(Vec<(Arc<Queue>, Option<u16>)>);

impl Sources {
    /// One queue.
    pub fn of(queue: Arc<Queue>) -> Self {
        Self(vec![(queue, None)])
    }

    /// Several, each once. With weights they are asked in an order that the weights draw, else in this one.
    pub fn among(queues: Vec<(Arc<Queue>, Option<u16>)>) -> Self {
        Self(queues)
    }

    /// The first of them.
    pub fn first(&self) -> Option<&Arc<Queue>> {
        self.0.first().map(|(queue, _)| queue)
    }

    /// Places of the queues in the order in which one look asks them.
    ///
    /// By weight each place is drawn from the queues that are left, in proportion to their weights: the smallest of
    /// exponential times whose rates are the weights (Efraimidis and Spirakis, 2006).
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        if self.0.iter().any(|(_, weight)| weight.is_some()) {
            let time = |(_, weight): &(Arc<Queue>, Option<u16>)| {
                // 0 is left out: its logarithm is no time.
                let dice: f64 = 1.0 - rand::rng().random::<f64>();
                -dice.ln() / f64::from(weight.unwrap_or(1))
            };
            let times: Vec<f64> = self.0.iter().map(time).collect();
            let of = |at: &usize| times.get(*at).copied().unwrap_or(f64::MAX);
            order.sort_by(|a, b| of(a).total_cmp(&of(b)));
        }
        order
    }

    /// A claim in all lines if it `waits`, else in none.
    pub fn enter(&self, waits: bool) -> Lines<'_> {
        let place = |(queue, _): &(Arc<Queue>, Option<u16>)| waits.then(|| queue.parking.enter());
        Lines { places: self.0.iter().map(place).collect(), asks: vec![true; self.0.len()], sources: self }
    }
}

/// The lines in which a claim stands, and what its next look asks.
#[derive(Debug)]
pub struct Lines<'a> {
    sources: &'a Sources,
    places: Vec<Option<Parked>>,
    /// The queues that the next look asks: all at first, and after a wake-up those that woke it. In the others it stood in
    /// line since it asked them, so nothing that became ready there is meant for it.
    asks: Vec<bool>,
}

impl<'a> Lines<'a> {
    /// The queues to ask now, in order.
    pub fn to_ask(&self) -> Vec<usize> {
        let asked = |at: &usize| self.asks.get(*at).copied().unwrap_or(false);
        self.sources.order().into_iter().filter(asked).collect()
    }

    /// How many queues the claim takes from.
    pub fn length(&self) -> usize {
        self.asks.len()
    }

    /// A queue, and the claim's place in its line.
    pub fn source(&mut self, at: usize) -> Option<(&'a Arc<Queue>, Option<&mut Parked>)> {
        let (queue, _) = self.sources.0.get(at)?;
        Some((queue, self.places.get_mut(at)?.as_mut()))
    }

    /// The next look asks these alone.
    pub fn ask_only(&mut self, these: &[usize]) {
        for (at, asks) in self.asks.iter_mut().enumerate() {
            *asks = these.contains(&at);
        }
    }

    /// Resolves when any of the queues wakes the claim.
    pub async fn woken(&mut self) {
        let places = &mut self.places;
        poll_fn(|cx| {
            let mut any = Poll::Pending;
            for place in places.iter_mut().flatten() {
                // Also after one that woke it: it looks at all that did.
                if place.poll_woken(cx).is_ready() {
                    any = Poll::Ready(());
                }
            }
            any
        })
        .await;
    }

    /// To the end of the lines of those that woke it, before the next look asks them; or, when it looks for another reason,
    /// all of them.
    pub fn line_up_again(&mut self) {
        let woken = |place: &Option<Parked>| place.as_ref().is_some_and(Parked::owes_look);
        let any = self.places.iter().any(woken);
        for (place, asks) in self.places.iter_mut().zip(&mut self.asks) {
            *asks = !any || woken(place);
            if let Some(place) = place.as_mut().filter(|_| *asks) {
                place.line_up_again();
            }
        }
    }

    /// The claim has what it wants: what woke it and was not asked wakes the next one.
    pub fn leave(self) {
        for place in self.places.into_iter().flatten() {
            place.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use brisq_model::{QueueName, TenantName};
    use brisq_store::MemoryStore;

    use super::*;
    use crate::budget::Budget;
    use crate::shard::Shared;

    fn sources(weights: &[Option<u16>]) -> Sources {
        let shared = Arc::new(Shared {
            store: Arc::new(MemoryStore::default()),
            metrics: Arc::default(),
            results: Arc::default(),
            pending: Budget::new(1 << 20),
        });
        let queue = |(n, weight): (usize, &Option<u16>)| {
            let (tenant, name) = (TenantName::new("t").unwrap(), QueueName::new(&format!("q{n}")).unwrap());
            (Arc::new(Queue::new(tenant, name, Arc::clone(&shared))), *weight)
        };
        Sources::among(weights.iter().enumerate().map(queue).collect())
    }

    fn waiting(sources: &Sources) -> Vec<usize> {
        sources.0.iter().map(|(queue, _)| queue.parking.waiting()).collect()
    }

    async fn is_woken(lines: &mut Lines<'_>) -> bool {
        tokio::time::timeout(Duration::ZERO, lines.woken()).await.is_ok()
    }

    #[tokio::test]
    async fn a_look_asks_all_queues_and_after_a_wake_up_those_that_woke_it() {
        let sources = sources(&[None; 4]);
        for (wakes, asked) in [(&[2][..], vec![2]), (&[3, 1], vec![1, 3]), (&[], vec![0, 1, 2, 3])] {
            let mut lines = sources.enter(true);
            assert_eq!(waiting(&sources), [1; 4]);
            assert_eq!(lines.to_ask(), [0, 1, 2, 3], "at first");
            for at in wakes {
                sources.0[*at].0.parking.wake(1);
            }
            assert_eq!(is_woken(&mut lines).await, !wakes.is_empty());
            lines.line_up_again();
            assert_eq!(lines.to_ask(), asked, "{wakes:?}");
            assert!(!is_woken(&mut lines).await, "one wake-up is one look");
            lines.leave();
            assert_eq!(waiting(&sources), [0; 4]);
        }
    }

    /// The claim of both queues is first in each line, and takes from one of them.
    #[tokio::test]
    async fn what_woke_a_claim_and_is_not_asked_wakes_the_next_one() {
        for noticed in [false, true] {
            let both = sources(&[None; 2]);
            let (first, second) = (&both.0[0].0.parking, &both.0[1].0.parking);
            let mut lines = both.enter(true);
            let mut next = second.enter();
            first.wake(1);
            if noticed {
                second.wake(1);
            }
            assert!(is_woken(&mut lines).await);
            lines.line_up_again();
            lines.source(0).unwrap().1.unwrap().looked();
            if !noticed {
                // While the first queue is asked.
                second.wake(1);
            }
            lines.leave();
            let woken = tokio::time::timeout(Duration::ZERO, next.woken()).await;
            assert!(woken.is_ok(), "noticed: {noticed}");
        }
    }

    #[test]
    fn the_order_is_the_names_or_the_weights() {
        assert_eq!(sources(&[None; 3]).order(), [0, 1, 2]);
        let (weighted, rounds) = (sources(&[Some(1), Some(256)]), 10_000);
        let heavy_first = (0..rounds).filter(|_| weighted.order() == [1, 0]).count();
        // 1 in 257 is the light one's: 39 of them, and six standard deviations beside.
        assert!((1..=76).contains(&(rounds - heavy_first)), "{heavy_first}");
    }
}
