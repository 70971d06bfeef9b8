//! Places in lists as texts that a caller hands back unchanged.

use brisq_api::ApiError;
use brisq_model::{TaskId, TaskState};
use brisq_store::Place;

/// Where a page begins: in the list of a state, at its beginning or behind a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub state: TaskState,
    pub after: Option<Place>,
}

impl Cursor {
    /// As a text.
    pub fn text(self) -> String {
        let state = self.state.name();
        match self.after {
            None => state.to_owned(),
            Some(Place { rank, tie, id }) => format!("{state}.{rank}.{tie}.{id}"),
        }
    }

    /// Reads the text of a place among dead letters.
    ///
    /// # Errors
    /// When it is none.
    pub fn read_dead(text: &str) -> Result<Self, ApiError> {
        match Self::read(text)? {
            cursor if cursor.state == TaskState::Dead => Ok(cursor),
            _ => Err(ApiError::invalid_field("cursor", "`cursor` is of a list of another state.")),
        }
    }

    /// Reads a text again.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &str) -> Result<Self, ApiError> {
        parse(text).ok_or_else(|| {
            ApiError::invalid_field("cursor", "`cursor` is the one of an answer before, unchanged.")
        })
    }
}

fn parse(text: &str) -> Option<Cursor> {
    let mut parts = text.split('.');
    let state = TaskState::from_name(parts.next()?)?;
    let Some(rank) = parts.next() else { return Some(Cursor { state, after: None }) };
    let (rank, tie, id) = (rank.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
    let id: TaskId = id.parse().ok()?;
    parts.next().is_none().then_some(Cursor { state, after: Some(Place { rank, tie, id }) })
}

#[cfg(test)]
mod tests {
    use brisq_model::{QueueNumber, Shard};

    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let id = TaskId::new(1, Shard::first(QueueNumber::new(1).unwrap()), 2);
        for after in [None, Some(Place { rank: u64::MAX, tie: 3, id })] {
            for state in TaskState::ALL {
                let cursor = Cursor { state, after };
                assert_eq!(Cursor::read(&cursor.text()).unwrap(), cursor);
            }
        }
        for wrong in ["", "asleep", "ready.1", "ready.1.2", "ready.x.2.3", "ready.1.2.3", "ready.1.2.3.4.5"] {
            assert!(Cursor::read(wrong).is_err(), "{wrong}");
        }
    }
}
