//! The judge against porcupine, which searches all orders that a history allows, on a small model: one queue, tasks with tokens,
//! leases that end at any time once they may (`tools/porcupine`).

use std::io::Write;
use std::process::{Command, Stdio};

use brisq_e2e::history::{Did, End, Event, History, Law};
use brisq_testkit::go_tool;
use serde_json::{Value, json};

use crate::draw::Dice;
use crate::judged::{broken, claim, end, enqueue, good, history, look, refused};

/// What the small model knows of.
const OF_THE_MODEL: [Law; 8] = [
    Law::TaskLost,
    Law::CompletionLost,
    Law::FromNowhere,
    Law::TwoLiveTokens,
    Law::StaleTokenAccepted,
    Law::HolderRefused,
    Law::DeliveredAfterCompletion,
    Law::CompletedTwice,
];
const RANDOM: u64 = 1_000;

fn line(history: &History) -> String {
    let events: Vec<Value> = history.events.iter().map(event).collect();
    json!({ "events": events }).to_string()
}

fn event(event: &Event) -> Value {
    let mut value = json!({"asked": event.asked, "answered": event.answered, "task": event.task});
    let did = match &event.did {
        Did::Enqueue { .. } => "enqueue",
        Did::Claim { token, lease_us, .. } => {
            (value["token"], value["lease"]) = (json!(token), json!(lease_us));
            "claim"
        }
        Did::Extend { token, lease_us, accepted } => {
            (value["token"], value["lease"], value["accepted"]) =
                (json!(token), json!(lease_us), json!(accepted));
            "extend"
        }
        Did::End { token, how, accepted } => {
            (value["token"], value["accepted"]) = (json!(token), json!(accepted));
            match how {
                End::Complete => "complete",
                End::Fail | End::FailForGood => "fail",
                End::Release | End::ReleaseLater => "release",
            }
        }
        Did::Look { state, .. } => match state.as_deref() {
            None => "lookMissing",
            Some("completed") => "lookCompleted",
            Some(_) => "lookOther",
        },
    };
    value["did"] = json!(did);
    value
}

/// Which of them porcupine finds to be illegal.
fn illegal(histories: &[History]) -> Vec<bool> {
    let tool = go_tool("porcupine").expect("porcupine is built");
    let mut command = Command::new(tool);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("porcupine runs");
    let lines: Vec<String> = histories.iter().map(line).collect();
    let mut input = child.stdin.take().expect("piped");
    // Its answers are short: they fit the pipe.
    input.write_all((lines.join("\n") + "\n").as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let verdicts = String::from_utf8(output.stdout).expect("text");
    let verdicts: Vec<bool> = verdicts
        .lines()
        .map(|verdict| {
            assert!(["ok", "illegal"].contains(&verdict), "{verdict}");
            verdict == "illegal"
        })
        .collect();
    assert_eq!(verdicts.len(), histories.len());
    verdicts
}

/// Whether the judge finds something that the small model knows of.
fn found(history: &History) -> bool {
    history.judge().iter().any(|broken| OF_THE_MODEL.contains(&broken.law))
}

#[test]
fn porcupine_and_the_judge_agree_on_what_is_written_by_hand() {
    let (names, mut histories): (Vec<String>, Vec<History>) =
        good().into_iter().map(|(what, history)| (what.to_owned(), history)).unzip();
    let good_ones = histories.len();
    let mut names = names;
    for (law, what, history) in broken() {
        names.push(format!("{law:?}: {what}"));
        histories.push(history);
    }
    let verdicts = illegal(&histories);
    for ((name, history), verdict) in names.iter().zip(&histories).zip(&verdicts) {
        assert_eq!(found(history), *verdict, "{name}");
    }
    assert!(!verdicts[..good_ones].contains(&true));
    let wrong = verdicts.iter().filter(|verdict| **verdict).count();
    println!("porcupine: {} histories by hand, {wrong} of them illegal, all judged alike", histories.len());
    assert!(wrong >= OF_THE_MODEL.len());
}

/// A task's true history, and what was said of it. Calls take a while before and after they take effect.
fn drawn(dice: &mut Dice, task: u64) -> Vec<Event> {
    let mut now = 10 + dice.roll(20);
    let mut events = Vec::new();
    let around = |now: u64, dice: &mut Dice| {
        let answered = (!dice.one_in(8)).then(|| now + dice.roll(15));
        (now - dice.roll(10).min(now), answered)
    };
    events.push(enqueue(task, around(now, dice)));
    // Who had it before, and the effect of the claim.
    let mut before: Option<(String, u64)> = None;
    for nth in 0..2 + dice.roll(3) {
        now += 1 + dice.roll(30);
        let token = format!("{task}-{nth}");
        let (asked, answered) = around(now, dice);
        events.push(claim(task, &token, (asked, Some(answered.unwrap_or(now + 3)))));
        let claimed = now;
        if let Some((old, _)) = before.take().filter(|_| dice.one_in(2)) {
            let (asked, answered) = around(now + 12, dice);
            events.push(refused(
                task,
                &old,
                End::Complete,
                (asked.max(now + 1), Some(answered.unwrap_or(now + 30))),
            ));
        }
        if dice.one_in(3) {
            // It expires.
            now = claimed + 1_000 + dice.roll(40);
            before = Some((token, claimed));
            continue;
        }
        now += 1 + dice.roll(30);
        let how = dice.of(&[End::Complete, End::Release, End::Complete]);
        let (asked, answered) = around(now, dice);
        events.push(end(task, &token, how, (asked.max(claimed), answered)));
        if how == End::Complete {
            events.push(look(task, "completed"));
            return events;
        }
    }
    events.push(look(task, "ready"));
    events
}

/// Says something else of one call than what was said.
fn spoil(events: &mut [Event], dice: &mut Dice) {
    let at = dice.roll(events.len() as u64) as usize;
    let other = events[dice.roll(events.len() as u64) as usize].clone();
    let event = &mut events[at];
    match (&mut event.did, dice.roll(3)) {
        (Did::End { accepted, .. }, 0) => *accepted = !*accepted,
        (Did::End { token, .. }, _) => {
            if let Did::Claim { token: another, .. } = other.did {
                *token = another;
            }
        }
        (Did::Claim { .. }, _) => {
            let earlier = dice.roll(1_500_000).min(event.asked);
            event.asked -= earlier;
            event.answered = event.answered.map(|answered| answered.saturating_sub(earlier));
        }
        (Did::Look { state, .. }, _) => {
            *state = dice.of(&[None, Some("ready"), Some("completed")]).map(str::to_owned);
        }
        _ => {}
    }
}

fn all(history: &History) -> String {
    history.events.iter().map(|event| format!("{event}\n")).collect()
}

/// The judge finds no fault where porcupine finds an order that explains all. It may miss what takes more than two calls to see.
#[test]
fn what_the_judge_finds_porcupine_finds_too() {
    let mut dice = Dice::new(7);
    let mut histories = Vec::new();
    for n in 0..RANDOM {
        let mut events = drawn(&mut dice, 1);
        events.extend(drawn(&mut dice, 2));
        if n % 4 != 0 {
            spoil(&mut events, &mut dice);
        }
        histories.push(history(events));
    }
    let verdicts = illegal(&histories);
    let (mut both, mut missed) = (0, 0);
    for (n, (history, verdict)) in histories.iter().zip(&verdicts).enumerate() {
        let broken = history.judge();
        let first = broken.iter().find(|broken| OF_THE_MODEL.contains(&broken.law));
        match (first, verdict) {
            (Some(first), false) => {
                panic!("{n}: porcupine explains {}\n{}", history.excerpt(first), all(history))
            }
            (Some(_), true) => both += 1,
            (None, true) => {
                missed += 1;
                assert!(n % 4 != 0, "{n} is as it was drawn:\n{}", all(history));
            }
            (None, false) => {}
        }
    }
    println!("porcupine: {RANDOM} drawn histories, {both} found by both, {missed} by porcupine alone");
    assert!(both > 10 * missed && both > 100, "{both} and {missed}");
}
