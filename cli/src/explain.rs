//! What a server says of why something is where it is, and of what happened to a task.

use brisq_client::{Event, Explanation};
use brisq_telemetry::say;

use crate::remote::{Remote, one_line};
use crate::{Failed, table};

pub fn tell(at: &Remote, explanation: &Explanation) -> Result<(), Failed> {
    at.tell(explanation, |told| {
        let since = told.since.as_ref().map_or_else(String::new, |since| format!(" since {since}"));
        let position = told.position.map(|position| ("position".to_owned(), position.to_string()));
        let facts = told.evidence.iter().map(|fact| (fact.name.clone(), fact.value.clone()));
        say(&one_line(&format!("{} ({}){since}: {}", told.reason, told.state, told.summary)));
        for (name, value) in facts.chain(position) {
            say(&one_line(&format!("  {name:<16} {value}")));
        }
        say(&one_line(&format!("next: {}", told.next_step)));
    })
}

pub fn tell_events(at: &Remote, events: &[Event]) -> Result<(), Failed> {
    at.tell(events, |events| {
        let text = |text: &Option<String>| one_line(text.as_deref().unwrap_or_default());
        let row = |event: &Event| {
            let attempt = event.attempt.map(|number| number.to_string()).unwrap_or_default();
            let why = [text(&event.reason), text(&event.message)].join(" ");
            vec![event.at.clone(), event.kind.clone(), attempt, text(&event.worker), why.trim().to_owned()]
        };
        let rows: Vec<Vec<String>> = events.iter().map(row).collect();
        table::print(&["AT", "EVENT", "ATTEMPT", "WORKER", "WHY"], &rows);
    })
}
