use brisq_model::{Declaration, Mark, Policy};

use super::queue::Queue;
use crate::{WorkDone, WorkOp};

fn mark(epoch: u64, generation: u64) -> Option<Mark> {
    Some(Mark { epoch, generation })
}

fn most(in_flight: u32) -> Option<Policy> {
    Some(Policy { in_flight_max: Some(in_flight), ..Policy::default() })
}

impl Queue {
    /// Whether the declaration changed what holds.
    async fn declare(&self, mark: Option<Mark>, policy: Option<Policy>, paused: bool) -> bool {
        match self.act(WorkOp::Declare(Box::new(Declaration { mark, policy, paused }))).await {
            Ok(WorkDone::Declared(changed)) => changed,
            other => panic!("{other:?}"),
        }
    }

    async fn most_in_flight(&self) -> Option<u32> {
        self.counts().await.policy.and_then(|policy| policy.in_flight_max)
    }

    async fn is_paused(&self) -> bool {
        self.counts().await.paused.is_some()
    }
}

pub(super) async fn a_declaration_holds_until_a_later_one(queue: &Queue) {
    assert_eq!(queue.counts().await.declared, None);
    for (mark, in_flight, changes, holds) in [
        (mark(10, 2), 1, true, 1),
        (mark(10, 2), 2, false, 1),
        (mark(10, 1), 3, false, 1),
        (mark(9, 7), 4, false, 1),
        (mark(10, 3), 5, true, 5),
        // Another object of the same name, made later.
        (mark(11, 1), 6, true, 6),
        (mark(10, 4), 7, false, 6),
        // As large as its numbers get.
        (mark(1 << 52, (1 << 53) - 2), 8, true, 8),
        (mark(1 << 52, (1 << 53) - 1), 9, true, 9),
        (mark(1 << 52, (1 << 53) - 2), 8, false, 9),
    ] {
        assert_eq!(queue.declare(mark, most(in_flight), false).await, changes, "{mark:?}");
        assert_eq!(queue.most_in_flight().await, Some(holds), "{mark:?}");
        if changes {
            assert_eq!(queue.counts().await.declared, mark);
        }
    }
    let other = queue.neighbour("other").await;
    assert_eq!(other.counts().await.declared, None);
    // Both in one call, the later one first.
    let op = |generation, in_flight| {
        let policy = most(in_flight);
        WorkOp::Declare(Box::new(Declaration { mark: mark(1, generation), policy, paused: true }))
    };
    let answer = other.work(vec![op(2, 20), op(1, 10), other.claim_op(1, 60_000)]).await;
    assert_eq!(answer.results[..2], [Ok(WorkDone::Declared(true)), Ok(WorkDone::Declared(false))]);
    assert_eq!((other.most_in_flight().await, other.is_paused().await), (Some(20), true));
}

pub(super) async fn what_a_manifest_says_of_a_pause_counts_where_it_changes(queue: &Queue) {
    queue.pause_queue("me", "by hand").await;
    queue.declare(mark(1, 1), most(1), false).await;
    assert!(queue.is_paused().await, "it never said otherwise");
    queue.resume_queue().await;
    queue.declare(mark(1, 2), most(1), true).await;
    let paused = queue.counts().await.paused.expect("a pause");
    assert_eq!(paused.by, "manifest");
    assert!(paused.reason.contains("paused: true"), "{}", paused.reason);
    queue.resume_queue().await;
    queue.declare(mark(1, 3), most(2), true).await;
    assert!(!queue.is_paused().await, "resumed by hand");
    queue.pause_queue("me", "by hand").await;
    queue.declare(mark(1, 4), most(2), false).await;
    assert!(!queue.is_paused().await);
    queue.add(&["1"]).await;
    assert_eq!(queue.claim(1).await.len(), 1);
}

pub(super) async fn a_queue_that_a_manifest_has_no_longer_keeps_what_held(queue: &Queue) {
    queue.declare(mark(1, 1), most(3), true).await;
    assert!(queue.declare(mark(1, 2), None, false).await);
    assert_eq!((queue.most_in_flight().await, queue.is_paused().await), (Some(3), true));
    queue.govern(Policy::default()).await;
    queue.resume_queue().await;
    assert!(!queue.declare(mark(1, 1), most(3), true).await, "a server that is late");
    assert_eq!((queue.most_in_flight().await, queue.is_paused().await), (None, false));
    queue.declare(mark(1, 3), most(4), true).await;
    assert_eq!((queue.most_in_flight().await, queue.is_paused().await), (Some(4), true));
}

pub(super) async fn a_declaration_without_a_mark_always_holds(queue: &Queue) {
    queue.declare(mark(7, 7), most(1), false).await;
    for in_flight in [2, 3] {
        assert!(queue.declare(None, most(in_flight), true).await);
        assert_eq!(queue.most_in_flight().await, Some(in_flight));
        assert_eq!(queue.counts().await.declared, mark(7, 7), "and lowers no mark");
    }
    assert!(queue.is_paused().await);
}
