//! The queues that a manifest declares: `spec.queues[]` of a TaskQueue, and the file that servers follow.

use std::collections::BTreeMap;

use brisq_model::{Mark, Policy, QueueName, limits};
use serde_json::value::RawValue;

use crate::read::{Fields, Request, object};
use crate::{ApiError, PolicyRequest};

/// The queues of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredQueues {
    /// The manifest's place among those before and after it; none where a person counts them.
    pub mark: Option<Mark>,
    /// By name, [`limits::DECLARED_QUEUES_MAX`] at most.
    pub queues: BTreeMap<QueueName, DeclaredQueue>,
}

/// What a manifest says of a queue: the body of a policy, and whether it is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredQueue {
    pub policy: Policy,
    pub paused: bool,
}

/// Something wrong in a list of queues.
#[derive(Clone, Debug)]
pub struct QueueMistake {
    /// Which one; `None` when the list as a whole is meant.
    pub index: Option<usize>,
    /// Its field, such as `limits.perSecond`; empty when the queue as a whole is meant.
    pub field: String,
    /// What it must be.
    pub message: String,
}

impl std::fmt::Display for QueueMistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.index {
            Some(index) => write!(f, "queues[{index}]: {}", self.message),
            None => write!(f, "queues: {}", self.message),
        }
    }
}

impl DeclaredQueues {
    /// Checks a list of queues, each as JSON.
    ///
    /// # Errors
    /// What is wrong with each of them.
    pub fn of_list(mark: Option<Mark>, list: &[Box<RawValue>]) -> Result<Self, Vec<QueueMistake>> {
        if list.len() > limits::DECLARED_QUEUES_MAX {
            let message = format!(
                "a manifest has at most {}, this one has {}",
                limits::DECLARED_QUEUES_MAX,
                list.len()
            );
            return Err(vec![QueueMistake { index: None, field: String::new(), message }]);
        }
        let bytes: usize = list.iter().map(|queue| queue.get().len()).sum();
        if bytes > limits::DECLARED_MAX_BYTES {
            let message =
                format!("have at most {} bytes as JSON, these have {bytes}", limits::DECLARED_MAX_BYTES);
            return Err(vec![QueueMistake { index: None, field: String::new(), message }]);
        }
        let (mut queues, mut mistakes) = (BTreeMap::new(), Vec::new());
        for (index, raw) in list.iter().enumerate() {
            let wrong = |field, message| QueueMistake { index: Some(index), field, message };
            match Named::of_json(raw) {
                Ok(Named { name, queue }) => {
                    if queues.insert(name.clone(), queue).is_some() {
                        mistakes.push(wrong("name".to_owned(), format!("there are two queues `{name}`")));
                    }
                }
                Err(error) => {
                    let field = error.detail.iter().find(|(name, _)| *name == "field");
                    let field = field.map_or_else(String::new, |(_, field)| field.clone());
                    mistakes.push(wrong(field, error.message));
                }
            }
        }
        if mistakes.is_empty() { Ok(Self { mark, queues }) } else { Err(mistakes) }
    }
}

struct Named {
    name: QueueName,
    queue: DeclaredQueue,
}

impl Named {
    fn of_json(raw: &RawValue) -> Result<Self, ApiError> {
        let Entry { name, paused, policy } = object("", raw)?;
        let name =
            QueueName::new(&name).map_err(|error| ApiError::invalid_field("name", error.to_string()))?;
        Ok(Self {
            name,
            queue: DeclaredQueue { policy: policy.into_policy()?, paused: paused.unwrap_or(false) },
        })
    }
}

/// A queue as it is written: the fields of a policy, and two of its own.
struct Entry {
    name: String,
    paused: Option<bool>,
    policy: PolicyRequest,
}

const OF_A_POLICY: &[&str] = <PolicyRequest as Request<'_>>::FIELDS;

const FIELDS: [&str; OF_A_POLICY.len() + 2] = {
    let mut fields = ["name"; OF_A_POLICY.len() + 2];
    fields[1] = "paused";
    fields.split_at_mut(2).1.copy_from_slice(OF_A_POLICY);
    fields
};

impl Request<'_> for Entry {
    const FIELDS: &'static [&'static str] = &FIELDS;
    const NOT_YET: &'static [&'static str] = <PolicyRequest as Request<'_>>::NOT_YET;

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            name: fields.needed_text("name")?.into_owned(),
            paused: fields.truth("paused")?,
            policy: PolicyRequest::of(fields)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> Result<DeclaredQueues, Vec<String>> {
        let list: Vec<Box<RawValue>> = serde_json::from_str(json).unwrap();
        let told = |mistake: &QueueMistake| format!("{mistake} ({})", mistake.field);
        DeclaredQueues::of_list(None, &list).map_err(|mistakes| mistakes.iter().map(told).collect())
    }

    #[test]
    fn a_declared_queue_is_a_policy_with_a_name() {
        let declared =
            list(r#"[{"name":"a"},{"name":"b","paused":true,"limits":{"maxInFlight":3}}]"#).unwrap();
        let queue = |name| &declared.queues[&QueueName::new(name).unwrap()];
        assert_eq!(queue("a"), &DeclaredQueue { policy: Policy::default(), paused: false });
        assert!(queue("b").paused);
        assert_eq!(queue("b").policy.in_flight_max, Some(3));
    }

    #[test]
    fn every_queue_that_is_wrong_is_named() {
        let wrong = r#"[{"name":"a"},{},{"name":"-"},{"name":"a"},{"name":"c","limits":{"perSecond":0}},
            {"name":"d","paused":"true"},{"name":"e","colour":1},[],{"name":"f","retry":{"delaysMs":["1"],"policy":"list"}}]"#;
        let told = list(wrong).unwrap_err();
        for (index, part, field) in [
            (1, "`name` is missing", "(name)"),
            (2, "a queue name is", "(name)"),
            (3, "two queues `a`", "(name)"),
            (4, "`limits.perSecond` is 0.001 to", "(limits.perSecond)"),
            (5, "`paused` is true or false", "(paused)"),
            (6, "no field `colour`", "(colour)"),
            (7, "an object is wanted", "()"),
            (8, "`retry.delaysMs`", "(retry.delaysMs)"),
        ] {
            let begin = format!("queues[{index}]: ");
            let found =
                told.iter().find(|told| told.starts_with(&begin)).unwrap_or_else(|| panic!("{told:?}"));
            assert!(found.contains(part) && found.ends_with(field), "{found}");
        }
        assert_eq!(told.len(), 8);
    }

    #[test]
    fn a_manifest_has_a_bound_in_queues_and_in_bytes() {
        let queues = |count: usize, rest: &str| {
            let queues: Vec<String> = (0..count).map(|n| format!(r#"{{"name":"q{n}"{rest}}}"#)).collect();
            list(&format!("[{}]", queues.join(",")))
        };
        assert_eq!(
            queues(limits::DECLARED_QUEUES_MAX, "").unwrap().queues.len(),
            limits::DECLARED_QUEUES_MAX
        );
        assert!(queues(limits::DECLARED_QUEUES_MAX + 1, "").unwrap_err()[0].contains("at most 200"));
        let spaces = " ".repeat(limits::DECLARED_MAX_BYTES / 100);
        assert!(queues(101, &spaces).unwrap_err()[0].contains("bytes"));
    }
}
