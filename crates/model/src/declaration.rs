//! What a manifest declares of a queue.

use crate::Policy;

/// Place of a manifest among those that declare the same queues: a store that has seen one takes no earlier one any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// When its object was made, in seconds: one that is made anew under its name begins again with generation 1.
    pub epoch: u64,
    /// Rises with every change of the object.
    pub generation: u64,
}

/// What a manifest declares of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Without one it holds whatever was declared before.
    pub mark: Option<Mark>,
    /// `None` where the manifest has the queue no longer: policy and pause stay as they are then.
    pub policy: Option<Policy>,
    /// Whether it is to be paused. It takes effect where the manifest before said otherwise: a pause or a resume by hand holds
    /// until then.
    pub paused: bool,
}

/// The last declaration of a queue, as far as the next one is judged by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// The highest there was.
    pub mark: Mark,
    pub paused: bool,
}

/// What a declaration changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What the next one is judged by.
    pub declared: Declared,
    /// Whether the queue is to be paused or resumed.
    pub pause: Option<bool>,
}

impl Declared {
    /// What `next` changes after this one; `None` when it changes nothing.
    #[must_use]
    pub fn followed_by(self, next: &Declaration) -> Option<Change> {
        if next.mark.is_some_and(|mark| mark <= self.mark) {
            return None;
        }
        let declared = Self { mark: next.mark.unwrap_or(self.mark), paused: next.paused };
        let turned = next.policy.is_some() && next.paused != self.paused;
        Some(Change { declared, pause: turned.then_some(next.paused) })
    }
}

/// Who a pause by a manifest is by.
pub const MANIFEST: &str = "manifest";
/// The reason of a pause by a manifest.
pub const DECLARED_PAUSED: &str = "the manifest says `paused: true`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_mark_changes_nothing_and_paused_counts_only_where_it_changes() {
        let mark = |epoch, generation| Some(Mark { epoch, generation });
        let next = |mark, paused| Declaration { mark, policy: Some(Policy::default()), paused };
        let is = Declared { mark: Mark { epoch: 5, generation: 7 }, paused: false };
        for (mark, paused, changes) in [
            (mark(5, 6), true, None),
            (mark(4, 9), true, None),
            (mark(5, 7), true, None),
            (mark(5, 8), false, Some(None)),
            (mark(5, 8), true, Some(Some(true))),
            (mark(6, 1), true, Some(Some(true))),
            (None, false, Some(None)),
            (None, true, Some(Some(true))),
        ] {
            let change = is.followed_by(&next(mark, paused));
            assert_eq!(change.map(|change| change.pause), changes, "{mark:?} {paused}");
        }
        let kept = is.followed_by(&next(None, true)).unwrap().declared;
        assert_eq!(kept, Declared { mark: is.mark, paused: true }, "what has no mark lowers none");
        let gone = Declaration { mark: mark(5, 9), policy: None, paused: false };
        let change = kept.followed_by(&gone).unwrap();
        assert_eq!((change.pause, change.declared.paused), (None, false), "the pause stays");
    }
}
