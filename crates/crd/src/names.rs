//! Names, as the API server and the rules of the definitions take them.

use crate::validate::Mistake;

/// Of a TaskQueue: names of pods and Services are made of it, which end at 63.
pub(crate) const TASK_QUEUE_NAME_MAX: usize = 40;
/// Ends of the names of what is made of a TaskQueue: `orders-redis` would be a queue of its own and the Redis of `orders`.
const TAKEN_ENDS: [&str; 3] = ["-redis", "-token", "-sidecar"];
/// Of any object.
const NAME_MAX: usize = 253;

/// What is wrong with a TaskQueue's name: its Services begin with it, and theirs are stricter than other names.
pub(crate) fn task_queue_name_mistakes(path: &str, name: &str) -> Vec<Mistake> {
    let mistakes = name_mistakes(path, name);
    if !mistakes.is_empty() {
        return mistakes;
    }
    let mut mistakes = Vec::new();
    if name.len() > TASK_QUEUE_NAME_MAX {
        let message = format!(
            "has at most {TASK_QUEUE_NAME_MAX} characters: names of pods and Services are made of it; {name} has {}",
            name.len()
        );
        mistakes.push(Mistake::at(path, message));
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.contains('.') {
        let message =
            format!("begins with a letter and has no dot: names of Services are made of it; is {name}");
        mistakes.push(Mistake::at(path, message));
    }
    if TAKEN_ENDS.iter().any(|end| name.ends_with(end)) {
        let message = format!(
            "does not end in -redis, -token or -sidecar: what is made of another TaskQueue has such names; is {name}"
        );
        mistakes.push(Mistake::at(path, message));
    }
    mistakes
}

/// What is wrong with the name of any object: parts of a-z, 0-9 and -, joined by dots (a subdomain of RFC 1123).
pub(crate) fn name_mistakes(path: &str, name: &str) -> Vec<Mistake> {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part =
        |part: &str| part.chars().all(|c| end(c) || c == '-') && part.starts_with(end) && part.ends_with(end);
    if name.len() <= NAME_MAX && name.split('.').all(part) {
        return Vec::new();
    }
    let is = if name.is_empty() { "missing" } else { name };
    let message = format!(
        "must be 1 to {NAME_MAX} of a-z, 0-9, - and ., each part between dots beginning and ending with a letter or \
         digit; is {is}"
    );
    vec![Mistake::at(path, message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_task_queues_are_stricter_than_others() {
        let long = "q".repeat(TASK_QUEUE_NAME_MAX + 1);
        for (name, any, queue) in [
            ("orders", true, true),
            ("a-1", true, true),
            ("a.b", true, false),
            ("1x", true, false),
            ("a-redis", true, false),
            ("a-token", true, false),
            ("a-sidecar", true, false),
            ("redis", true, true),
            ("a-redis-1", true, true),
            (long.as_str(), true, false),
            ("", false, false),
            ("Orders", false, false),
            ("a-", false, false),
            ("a..b", false, false),
            ("a_b", false, false),
            ("q".repeat(254).as_str(), false, false),
        ] {
            assert_eq!(name_mistakes("metadata.name", name).is_empty(), any, "{name}");
            assert_eq!(task_queue_name_mistakes("metadata.name", name).is_empty(), queue, "{name}");
        }
    }
}
