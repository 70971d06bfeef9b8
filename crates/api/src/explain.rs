//! Why a task or a queue is where it is, and what happened to a task.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident => $text:literal;)*) => {
        /// The one reason that explains most; `docs/explain/` has a page for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Its page, Markdown.
            #[must_use]
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("../../../docs/explain/", $text, ".md")),)*
                }
            }
        }
    };
}

reasons! {
    /// It has ended.
    Finished => "finished";
    /// A worker holds it.
    Leased => "leased";
    /// It waits for its time.
    Delayed => "delayed";
    /// Its queue hands out nothing.
    Paused => "paused";
    /// Another task holds its ordering key.
    OrderingKeyBusy => "orderingKeyBusy";
    /// Its queue or its limit key has as many leases as it may.
    LimitFull => "limitFull";
    /// Its queue or its limit key has started as many tasks as it may.
    RateLimited => "rateLimited";
    /// Nobody asks for tasks of its queue.
    NoClaimers => "noClaimers";
    /// Others stand before it.
    Behind => "behind";
    /// The next claim takes it.
    Claimable => "claimable";
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why a task, or the first task of a queue, is where it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainView {
    /// State of the task, or of the queue's first one; `empty` where a queue has none that is not finished.
    pub state: &'static str,
    /// `finished`, `leased`, `delayed`, `paused`, `orderingKeyBusy`, `limitFull`, `rateLimited`, `noClaimers`, `behind` or `claimable`: the first of these that holds.
    #[schema(value_type = String)]
    pub reason: Reason,
    /// Since when, by the store's clock; left out where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub since: Option<String>,
    /// One sentence for people.
    pub summary: String,
    /// What it is concluded from.
    pub evidence: Vec<Evidence>,
    /// What to do about it.
    pub next_step: &'static str,
    /// Place of a ready task in the line, or of a blocked one in that of its gate, 1 for the head; 10,001 means that or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
}

/// A fact.
#[derive(Debug, Serialize, ToSchema)]
pub struct Evidence {
    /// Such as `worker`.
    pub name: &'static str,
    /// As text.
    pub value: String,
}

/// What happened to a task.
#[derive(Debug, Serialize, ToSchema)]
pub struct Events<'a> {
    /// Oldest first. Of claims that were given back only the last is told, and of heartbeats the last of the present lease. Of
    /// attempts and other events the last 200 are kept.
    pub events: Vec<EventView<'a>>,
}

/// One event.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventView<'a> {
    /// RFC 3339, by the store's clock.
    pub at: String,
    /// `enqueued`, `claimed`, `heartbeat`, `failed`, `expired`, `redriven`, `completed`, `cancelled` or `dead`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Who held the lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub worker: Option<Cow<'a, str>>,
    /// Number of the attempt that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Why it is dead, or the kind of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<Cow<'a, str>>,
    /// What the worker said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub message: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_their_pages_agree() {
        let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/explain");
        let overview = std::fs::read_to_string(pages.join("README.md")).unwrap();
        for reason in Reason::ALL {
            let name = reason.as_str();
            assert!(reason.page().contains("## What to do"), "{name}: the page does not say what to do");
            assert!(overview.contains(&format!("[{name}]({name}.md)")), "README.md lacks {name}");
        }
        assert_eq!(std::fs::read_dir(&pages).unwrap().count(), Reason::ALL.len() + 1, "a page has no reason");
    }
}
