//! The judge itself: a history as it should be passes, and each kind of broken one is found.

use brisq_e2e::history::{Did, End, Event, Excuse, Fault, History, Keys, Law, Pace, Rules, Us};

const LEASE_US: Us = 1_000_000;

/// A moment or two in ms: asked, and answered if it was.
type When = (Us, Option<Us>);

pub fn at(asked: Us, answered: Us) -> When {
    (asked, Some(answered))
}

pub fn open(asked: Us) -> When {
    (asked, None)
}

fn event(task: u64, (asked, answered): When, did: Did) -> Event {
    Event { asked: asked * 1_000, answered: answered.map(|ms| ms * 1_000), task, did }
}

fn id(task: u64) -> String {
    format!("id{task}")
}

/// An enqueue that was acknowledged if it was answered.
pub fn enqueue(task: u64, when: When) -> Event {
    keyed(task, when, 0, Keys::default())
}

fn keyed(task: u64, when: When, nth: usize, keys: Keys) -> Event {
    event(task, when, Did::Enqueue { nth, keys, delayed: false, id: when.1.map(|_| id(task)) })
}

fn ordered(task: u64, when: When, nth: usize) -> Event {
    keyed(task, when, nth, Keys { ordering: Some("k".into()), limit: None })
}

fn limited(task: u64, when: When) -> Event {
    keyed(task, when, 0, Keys { ordering: None, limit: Some("k".into()) })
}

pub fn claim(task: u64, token: &str, when: When) -> Event {
    nth_claim(task, token, 1, when)
}

fn nth_claim(task: u64, token: &str, attempt: u32, when: When) -> Event {
    event(task, when, Did::Claim { id: id(task), token: token.into(), attempt, lease_us: LEASE_US })
}

pub fn end(task: u64, token: &str, how: End, when: When) -> Event {
    event(task, when, Did::End { token: token.into(), how, accepted: when.1.is_some() })
}

pub fn refused(task: u64, token: &str, how: End, when: When) -> Event {
    event(task, when, Did::End { token: token.into(), how, accepted: false })
}

fn extend(task: u64, token: &str, when: When) -> Event {
    event(task, when, Did::Extend { token: token.into(), lease_us: LEASE_US, accepted: true })
}

pub fn look(task: u64, state: &str) -> Event {
    look_failed(task, state, 0)
}

fn look_failed(task: u64, state: &str, failed: usize) -> Event {
    let state = (!state.is_empty()).then(|| state.to_owned());
    event(task, at(90_000, 90_001), Did::Look { state, failed })
}

pub fn history(events: Vec<Event>) -> History {
    History { rules: Rules { attempts: 5, ..Rules::default() }, events, faults: Vec::new() }
}

fn ruled(rules: Rules, events: Vec<Event>) -> History {
    History { rules: Rules { attempts: 5, ..rules }, events, faults: Vec::new() }
}

fn with(mut history: History, at: Us, until: Us, excuses: &'static [Excuse]) -> History {
    history.faults.push(Fault { at: at * 1_000, until: until * 1_000, name: "fault", excuses });
    history
}

fn one_at_a_time() -> Rules {
    Rules { key_in_flight: Some(1), ..Rules::default() }
}

fn ten_a_second() -> Rules {
    Rules { key_pace: Some(Pace { per_second: 10.0, burst: 1 }), ..Rules::default() }
}

/// Histories that a queue which keeps its promises can have, by what is particular about them.
pub fn good() -> Vec<(&'static str, History)> {
    use End::{Complete, Fail, Release, ReleaseLater};
    vec![
        (
            "a task is enqueued, claimed and completed",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                end(1, "a", Complete, at(4, 5)),
                look(1, "completed"),
            ]),
        ),
        (
            "a lease runs out, and its holder is refused",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                claim(1, "b", at(500, 1_004)),
                refused(1, "a", Complete, at(1_005, 1_006)),
                end(1, "b", Complete, at(1_007, 1_008)),
                look(1, "completed"),
            ]),
        ),
        (
            "an end is repeated whose answer did not come",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                end(1, "a", Complete, open(4)),
                end(1, "a", Complete, at(50, 51)),
                look(1, "completed"),
            ]),
        ),
        (
            "a release without an answer lets another claim it",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                end(1, "a", Release, open(4)),
                claim(1, "b", at(50, 51)),
                end(1, "b", Complete, at(52, 53)),
                look(1, "completed"),
            ]),
        ),
        (
            "two claims lie over each other, and the end between them",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "b", at(2, 60)),
                claim(1, "a", at(3, 4)),
                end(1, "a", Release, at(5, 50)),
                end(1, "b", Complete, at(61, 62)),
                look(1, "completed"),
            ]),
        ),
        (
            "a heartbeat extends the lease",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                extend(1, "a", at(900, 901)),
                claim(1, "b", at(1_700, 1_901)),
                end(1, "b", Complete, at(1_902, 1_903)),
                look(1, "completed"),
            ]),
        ),
        (
            "an enqueue without an answer is there, or is not",
            history(vec![enqueue(1, open(0)), claim(1, "a", at(2, 3)), enqueue(2, open(5)), look(2, "")]),
        ),
        (
            "attempts that failed are counted, expiries are not",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                end(1, "a", Fail, at(4, 5)),
                nth_claim(1, "b", 2, at(6, 7)),
                nth_claim(1, "c", 2, at(2_000, 2_001)),
                end(1, "c", Complete, at(2_002, 2_003)),
                look_failed(1, "completed", 1),
            ]),
        ),
        (
            "a key's tasks come one after the other, and pass one that was given back for later",
            history(vec![
                ordered(1, at(0, 1), 0),
                ordered(2, at(0, 1), 1),
                claim(1, "a", at(2, 3)),
                end(1, "a", ReleaseLater, at(4, 5)),
                claim(2, "b", at(6, 7)),
                end(2, "b", Complete, at(8, 9)),
                claim(1, "c", at(70, 71)),
                end(1, "c", Complete, at(72, 73)),
            ]),
        ),
        (
            "a limit of one has its next as soon as an end was asked for",
            ruled(
                one_at_a_time(),
                vec![
                    limited(1, at(0, 1)),
                    limited(2, at(0, 1)),
                    claim(1, "a", at(2, 3)),
                    end(1, "a", Complete, at(4, 9)),
                    claim(2, "b", at(5, 6)),
                ],
            ),
        ),
        (
            "starts come as often as they may",
            ruled(
                ten_a_second(),
                (1..5)
                    .flat_map(|n| [limited(n, at(0, 1)), claim(n, &n.to_string(), at(n * 100, n * 100 + 1))])
                    .collect(),
            ),
        ),
    ]
}

/// Histories that break one law, each.
pub fn broken() -> Vec<(Law, &'static str, History)> {
    use End::{Complete, Fail, Release};
    let done = |task| {
        [enqueue(task, at(0, 1)), claim(task, "a", at(2, 3)), end(task, "a", Complete, at(4, 5))].to_vec()
    };
    let and = |mut events: Vec<Event>, more: Vec<Event>| {
        events.extend(more);
        history(events)
    };
    vec![
        (Law::TaskLost, "never seen again", history(vec![enqueue(1, at(0, 1)), look(1, "")])),
        (Law::CompletionLost, "it is ready again", and(done(1), vec![look(1, "dead")])),
        (Law::LeftBehind, "nobody got it", history(vec![enqueue(1, at(0, 1)), look(1, "ready")])),
        (
            Law::FromNowhere,
            "claimed before anybody asked for it",
            history(vec![claim(1, "a", at(2, 3)), enqueue(1, at(4, 5))]),
        ),
        (
            Law::FromNowhere,
            "a token that nobody was given",
            history(vec![enqueue(1, at(0, 1)), claim(1, "a", at(2, 3)), end(1, "b", Release, at(4, 5))]),
        ),
        (
            Law::FromNowhere,
            "completed by nobody",
            history(vec![enqueue(1, at(0, 1)), claim(1, "a", at(2, 3)), look(1, "completed")]),
        ),
        (
            Law::TwoLiveTokens,
            "within the first lease",
            history(vec![enqueue(1, at(0, 1)), claim(1, "a", at(2, 3)), claim(1, "b", at(500, 900))]),
        ),
        (
            Law::TwoLiveTokens,
            "within a lease that was extended",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                extend(1, "a", at(900, 901)),
                claim(1, "b", at(1_100, 1_101)),
            ]),
        ),
        (
            Law::TwoLiveTokens,
            "claimed at once",
            history(vec![enqueue(1, at(0, 1)), claim(1, "a", at(2, 9)), claim(1, "b", at(3, 8))]),
        ),
        (
            Law::StaleTokenAccepted,
            "after the lease ran out and another had it",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                claim(1, "b", at(1_100, 1_101)),
                end(1, "a", Release, at(1_200, 1_201)),
            ]),
        ),
        (
            Law::StaleTokenAccepted,
            "a heartbeat of a lease that another has",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                claim(1, "b", at(1_100, 1_101)),
                extend(1, "a", at(1_200, 1_201)),
            ]),
        ),
        (
            Law::HolderRefused,
            "within its lease",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                refused(1, "a", Complete, at(900, 950)),
            ]),
        ),
        (
            Law::DeliveredAfterCompletion,
            "its lease would have run out by then",
            and(done(1), vec![claim(1, "b", at(5_000, 5_001))]),
        ),
        (
            Law::CompletedTwice,
            "by two holders, in an order that nobody can tell",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                claim(1, "b", at(1_100, 1_500)),
                end(1, "a", Complete, at(1_000, 1_600)),
                end(1, "b", Complete, at(1_500, 1_600)),
            ]),
        ),
        (
            Law::TwoTasksOfOneKey,
            "a repeat made another",
            history(vec![
                enqueue(1, at(0, 1)),
                event(
                    1,
                    at(2, 3),
                    Did::Enqueue { nth: 0, keys: Keys::default(), delayed: false, id: Some("other".into()) },
                ),
            ]),
        ),
        (
            Law::OutOfOrder,
            "the second of one call is first",
            history(vec![
                ordered(1, at(0, 1), 0),
                ordered(2, at(0, 1), 1),
                claim(2, "b", at(2, 3)),
                end(2, "b", Complete, at(4, 5)),
                claim(1, "a", at(6, 7)),
            ]),
        ),
        (
            Law::OutOfOrder,
            "the first is to be tried again",
            history(vec![
                ordered(1, at(0, 1), 0),
                ordered(2, at(2, 3), 0),
                claim(1, "a", at(4, 5)),
                end(1, "a", Fail, at(6, 7)),
                claim(2, "b", at(8, 9)),
            ]),
        ),
        (
            Law::TwoOfOneOrderingKey,
            "whichever came first",
            history(vec![
                ordered(1, at(0, 5), 0),
                ordered(2, at(1, 4), 0),
                claim(1, "a", at(6, 7)),
                claim(2, "b", at(8, 9)),
            ]),
        ),
        (
            Law::OverLimit,
            "two of one",
            ruled(
                one_at_a_time(),
                vec![
                    limited(1, at(0, 1)),
                    limited(2, at(0, 1)),
                    claim(1, "a", at(2, 3)),
                    claim(2, "b", at(4, 5)),
                ],
            ),
        ),
        (
            Law::OverRate,
            "four in the time of three",
            ruled(
                ten_a_second(),
                (1..5)
                    .flat_map(|n| [limited(n, at(0, 1)), claim(n, &n.to_string(), at(n * 50, n * 50 + 1))])
                    .collect(),
            ),
        ),
        (
            Law::AttemptsMiscounted,
            "an expiry was counted",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                nth_claim(1, "b", 2, at(2_000, 2_001)),
            ]),
        ),
        (
            Law::AttemptsMiscounted,
            "a repeat was counted twice",
            history(vec![
                enqueue(1, at(0, 1)),
                claim(1, "a", at(2, 3)),
                end(1, "a", Fail, open(4)),
                end(1, "a", Fail, at(50, 51)),
                nth_claim(1, "b", 3, at(90, 91)),
            ]),
        ),
    ]
}

fn laws(history: &History) -> Vec<Law> {
    history.judge().into_iter().map(|broken| broken.law).collect()
}

#[test]
fn a_history_as_it_should_be_passes() {
    for (what, history) in good() {
        assert_eq!(laws(&history), [], "{what}");
    }
}

#[test]
fn each_kind_of_broken_history_is_found() {
    for (law, what, history) in broken() {
        let found = history.judge();
        assert!(found.iter().any(|broken| broken.law == law), "{law:?}, {what}: {found:?}");
        let told = found.iter().map(|broken| history.excerpt(broken)).collect::<String>();
        assert!(told.contains("task 1:") || law == Law::OverRate, "{told}");
    }
}

/// The same events are a fault of the queue without what happened to its parts.
#[test]
fn what_a_fault_excuses_is_no_more_than_what_is_stated() {
    let lost = || history(vec![enqueue(1, at(1_000, 1_001)), look(1, "")]);
    let early = || history(vec![enqueue(1, at(0, 1)), claim(1, "a", at(2, 3)), claim(1, "b", at(500, 900))]);
    let loses: &[Excuse] = &[Excuse::Loses(1_000_000)];
    for (what, history, broken) in [
        ("lost", lost(), vec![Law::TaskLost]),
        ("in the last second", with(lost(), 1_900, 2_000, loses), vec![]),
        ("while nobody was there", with(lost(), 500, 1_000, loses), vec![]),
        ("before it", with(lost(), 2_100, 2_200, loses), vec![Law::TaskLost]),
        ("after it", with(lost(), 100, 900, loses), vec![Law::TaskLost]),
        ("by something else", with(lost(), 1_900, 2_000, &[]), vec![Law::TaskLost]),
        ("early", early(), vec![Law::TwoLiveTokens]),
        ("by a clock", with(early(), 400, 600, &[Excuse::StepsAhead]), vec![]),
        ("by a clock later on", with(early(), 950, 960, &[Excuse::StepsAhead]), vec![Law::TwoLiveTokens]),
    ] {
        assert_eq!(laws(&history), broken, "{what}");
    }
}

#[test]
fn totals_say_why_tasks_came_twice() {
    use End::{Complete, Fail};
    let mut all = history(vec![
        enqueue(1, at(0, 1)),
        claim(1, "a", at(2, 3)),
        end(1, "a", Fail, at(4, 5)),
        nth_claim(1, "b", 2, at(6, 7)),
        enqueue(2, at(0, 1)),
        claim(2, "a", at(2, 3)),
        claim(2, "b", at(1_100, 1_101)),
        enqueue(3, at(0, 1)),
        claim(3, "a", at(2, 3)),
        end(3, "a", Fail, open(4)),
        claim(3, "b", at(50, 51)),
        enqueue(4, at(4_500, 4_501)),
        claim(4, "a", at(4_502, 4_503)),
        end(4, "a", Complete, at(4_504, 4_505)),
        claim(4, "b", at(5_300, 5_301)),
        enqueue(5, at(4_500, 4_501)),
        look(5, ""),
    ]);
    all = with(all, 5_000, 5_100, &[Excuse::Loses(1_000_000)]);
    assert_eq!(
        all.totals().to_string(),
        "5 acknowledged, 4 delivered, 3 doubled (1 lease expired, 1 answer lost, 1 store's stated loss; 1 more were \
         asked for), 0 lost (1 as the store states)"
    );
}
