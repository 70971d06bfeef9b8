//! Fairness between the keys of a queue: start-time fair queueing (Goyal, Vin and Cheng, 1996), by tags.
//!
//! Each line (the ready tasks of a band, the tasks of a band at one gate) has a virtual time: the tag of the task that left it
//! last. Each key with tasks in the line has an account: where its next task starts. A task's tag is where it starts, and moves
//! the account on by [`STEP`] over the key's weight; tasks leave by their tags. Tasks without a key are one flow among the others.
//!
//! A key that had nothing in the line joins at the end of the round that is being served: it waits at most one task of each
//! other key (of one that weighs more, as many as it weighs), and gains nothing by coming with one task at a time. So accounts
//! live only while their key has tasks in the line, however many keys come and go.
//!
//! Before the first task with a fairness key there are no accounts: tags are the numbers in which tasks came, and so they are again
//! once no task is ready, leased or blocked.

use std::collections::HashMap;

use brisq_model::{Gate, TaskKey};

/// What a task of weight 1 takes of the virtual time.
pub(super) const STEP: u64 = 256;
/// Tags stay below: a tag, a band and a place fit one number of Redis. Beyond 2^39 tasks of a line that was never empty, it is one
/// in the order of ids.
const TAG_MAX: u64 = (1 << 48) - 1;

/// A line whose tasks are treated fairly: those that are ready, or those at a gate of a key; of one band.
pub(super) type LineName = (Option<(Gate, TaskKey)>, u8);

#[derive(Debug, Default)]
pub(super) struct Fair {
    /// The number of the first task with a key. Older ones without a key are in no account.
    since: Option<u64>,
    lines: HashMap<LineName, Flows>,
}

#[derive(Debug, Default)]
struct Flows {
    /// The virtual time; unknown before anything has left the line.
    now: Option<u64>,
    accounts: HashMap<Option<TaskKey>, Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// Where the next task starts.
    next: u64,
    tasks: u64,
}

/// A task as a line sees it.
#[derive(Debug)]
pub(super) struct Flow<'t> {
    pub(super) line: LineName,
    pub(super) key: Option<&'t TaskKey>,
    pub(super) weight: u16,
}

impl Flow<'_> {
    fn step(&self) -> u64 {
        (STEP / u64::from(self.weight.max(1))).max(1)
    }
}

impl Fair {
    /// Whether tags are the numbers in which tasks came.
    pub(super) fn is_plain(&self) -> bool {
        self.since.is_none()
    }

    /// Nothing is in any line, and nothing can return to one.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The tag of the task with this number, which joins the line. `head` is the line's first tag.
    pub(super) fn joined(&mut self, flow: &Flow<'_>, number: u64, head: impl FnOnce() -> Option<u64>) -> u64 {
        if self.is_plain() && flow.key.is_some() {
            self.lines.clear();
            self.since = Some(number);
        }
        let Some(since) = self.since else { return number };
        let flows = self.lines.entry(flow.line.clone()).or_default();
        let now = flows.now.or_else(head).unwrap_or(since);
        let round_end = now + STEP - 1;
        let newcomer = if flow.key.is_some() { round_end } else { round_end.max(since + 1) };
        let account = flows.accounts.entry(flow.key.cloned()).or_insert(Account { next: newcomer, tasks: 0 });
        let tag = account.next.max(now).min(TAG_MAX);
        *account = Account { next: tag + flow.step(), tasks: account.tasks + 1 };
        tag
    }

    /// A task has come back to the line, with the tag that it had there.
    pub(super) fn returned(&mut self, flow: &Flow<'_>, tag: u64) {
        if self.is_outside(flow, tag) {
            return;
        }
        let flows = self.lines.entry(flow.line.clone()).or_default();
        let account = flows.accounts.entry(flow.key.cloned()).or_default();
        let behind = (tag + flow.step()).max(flows.now.map_or(0, |now| now + STEP - 1));
        *account = Account {
            next: if account.tasks == 0 { behind } else { account.next },
            tasks: account.tasks + 1,
        };
    }

    /// A task is in the line no more.
    pub(super) fn left(&mut self, flow: &Flow<'_>, tag: u64) {
        if self.is_outside(flow, tag) {
            return;
        }
        let Some(flows) = self.lines.get_mut(&flow.line) else { return };
        if let Some(account) = flows.accounts.get_mut(&flow.key.cloned()) {
            account.tasks = account.tasks.saturating_sub(1);
            if account.tasks == 0 {
                flows.accounts.remove(&flow.key.cloned());
            }
        }
        // The lines of gates come and go with their keys.
        if flow.line.0.is_some() && flows.accounts.is_empty() {
            self.lines.remove(&flow.line);
        }
    }

    /// The task with this tag is the next that left.
    pub(super) fn served(&mut self, line: &LineName, tag: u64) {
        if self.is_plain() {
            return;
        }
        if line.0.is_none() || self.lines.contains_key(line) {
            let flows = self.lines.entry(line.clone()).or_default();
            flows.now = Some(flows.now.map_or(tag, |now| now.max(tag)));
        }
    }

    /// Takes a task back in when a store opens.
    pub(super) fn restore(&mut self, flow: &Flow<'_>, number: u64, tag: u64) {
        if flow.key.is_some() || tag != number {
            self.since = Some(0);
        }
        let flows = self.lines.entry(flow.line.clone()).or_default();
        let account = flows.accounts.entry(flow.key.cloned()).or_default();
        *account = Account { next: account.next.max(tag + flow.step()), tasks: account.tasks + 1 };
    }

    /// Takes in that a task of the band has left its line, when a store opens: should it come back, others have come behind it.
    pub(super) fn restore_served(&mut self, band: u8, number: u64, tag: Option<u64>, is_fair: bool) {
        let tag = tag.unwrap_or(number);
        if is_fair || tag != number {
            self.since = Some(0);
        }
        let flows = self.lines.entry((None, band)).or_default();
        flows.now = Some(flows.now.map_or(tag, |now| now.max(tag)));
    }

    /// Whether the task is older than the accounts.
    fn is_outside(&self, flow: &Flow<'_>, tag: u64) -> bool {
        self.since.is_none_or(|since| flow.key.is_none() && tag <= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> TaskKey {
        TaskKey::new(name).unwrap()
    }

    /// A line as it is served: tasks by tag, and by when they came.
    #[derive(Default)]
    struct Simulated {
        fair: Fair,
        line: std::collections::BTreeSet<(u64, u64)>,
        tasks: HashMap<u64, (Option<TaskKey>, u16)>,
        came: u64,
    }

    impl Simulated {
        fn put(&mut self, name: &str, weight: u16) -> u64 {
            let key = (!name.is_empty()).then(|| key(name));
            self.came += 1;
            let head = self.line.first().map(|(tag, _)| *tag);
            let flow = Flow { line: (None, 0), key: key.as_ref(), weight };
            let tag = self.fair.joined(&flow, self.came, || head);
            self.line.insert((tag, self.came));
            self.tasks.insert(self.came, (key, weight));
            self.came
        }

        fn serve(&mut self) -> Option<String> {
            let (tag, number) = self.line.pop_first()?;
            let (key, weight) = self.tasks.remove(&number)?;
            self.fair.left(&Flow { line: (None, 0), key: key.as_ref(), weight }, tag);
            self.fair.served(&(None, 0), tag);
            Some(key.map_or_else(String::new, |key| key.to_string()))
        }

        fn served(&mut self, count: usize) -> HashMap<String, usize> {
            let mut by_key = HashMap::new();
            for _ in 0..count {
                *by_key.entry(self.serve().unwrap()).or_default() += 1;
            }
            by_key
        }
    }

    #[test]
    fn without_keys_tasks_leave_as_they_came() {
        let mut line = Simulated::default();
        for _ in 0..100 {
            line.put("", 1);
        }
        assert!(line.fair.is_plain());
        assert_eq!(line.line.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    }

    #[test]
    fn a_key_waits_at_most_one_task_of_each_other_key_whatever_their_backlogs() {
        for (backlog, others) in [(1_000, 1), (100, 10), (2, 500)] {
            let mut line = Simulated::default();
            for n in 0..others {
                for _ in 0..backlog {
                    line.put(&format!("other-{n}"), 1);
                }
            }
            for served in [0, 1, others / 2, others, 2 * others] {
                line.served(served.min(line.line.len()));
                line.put("late", 1);
                let mut waited = 0;
                while line.serve().unwrap() != "late" {
                    waited += 1;
                }
                assert!(waited <= others, "{backlog} x {others}: waited for {waited}");
                line.put("other-0", 1);
            }
        }
    }

    #[test]
    fn keys_are_served_by_weight_and_the_keyless_are_one_of_them() {
        let mut line = Simulated::default();
        line.put("first", 1);
        line.serve();
        for _ in 0..4_000 {
            line.put("a", 1);
            line.put("b", 4);
            line.put("c", 3);
            line.put("", 1);
        }
        let served = line.served(900);
        for (key, share) in [("a", 100), ("b", 400), ("c", 300), ("", 100)] {
            let count = served.get(key).copied().unwrap_or(0);
            assert!(count.abs_diff(share) <= 5, "{key}: {count} of {share}");
        }
    }

    #[test]
    fn one_task_at_a_time_gains_nothing() {
        let mut line = Simulated::default();
        for n in 0..9 {
            for _ in 0..1_000 {
                line.put(&format!("other-{n}"), 1);
            }
        }
        line.put("single", 1);
        let mut singles = 0;
        for _ in 0..1_000 {
            if line.serve().unwrap() == "single" {
                singles += 1;
                line.put("single", 1);
            }
        }
        assert!((95..=105).contains(&singles), "{singles} of 1,000 went to one of ten keys");
    }

    #[test]
    fn accounts_live_with_their_tasks() {
        let mut line = Simulated::default();
        for n in 0..10_000 {
            line.put(&format!("key-{n}"), 1);
            if n >= 100 {
                line.serve();
            }
        }
        let accounts = line.fair.lines.values().map(|flows| flows.accounts.len()).sum::<usize>();
        assert_eq!(accounts, 100);
    }

    #[test]
    fn tasks_from_before_the_first_key_keep_their_order_and_are_passed_by_it() {
        let mut line = Simulated::default();
        for _ in 0..1_000 {
            line.put("", 1);
        }
        line.serve();
        line.put("new", 1);
        let last = line.put("", 1);
        let order: Vec<_> = std::iter::from_fn(|| line.serve()).collect();
        let at = order.iter().position(|key| key == "new").unwrap();
        assert!(at <= STEP as usize, "the first task with a key came after {at}");
        assert_eq!((order.len(), last), (1_001, 1_002));
    }
}
