//! What a worker says of its failure is cut to what is kept, and says so itself: a failure that is refused for its text
//! would not count, and the task would be run again.

use brisq_model::limits;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::raw::bytes_of;

/// Bytes that are kept of a detail that is too large: even if each has to be escaped, what comes of them fits.
const DETAIL_BEGINS_BYTES: usize = limits::ERROR_DETAIL_MAX_BYTES / 2 - 64;

/// The text, or its beginning and how long it was.
pub(crate) fn cut_text(text: Option<&str>, max_bytes: usize) -> String {
    let text = text.unwrap_or_default();
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let note = format!("... [cut, was {} bytes]", text.len());
    begin(text, max_bytes.saturating_sub(note.len())).to_owned() + &note
}

/// The JSON, or an object with its beginning as text and its length.
pub(crate) fn cut_detail(raw: &RawValue) -> Bytes {
    let text = raw.get();
    if text.len() <= limits::ERROR_DETAIL_MAX_BYTES {
        return bytes_of(raw);
    }
    let begins = begin(text, DETAIL_BEGINS_BYTES);
    serde_json::json!({"cut": {"bytes": text.len(), "begins": begins}}).to_string().into()
}

fn begin(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use brisq_model::TaskError;

    use super::*;
    use crate::{FailRequest, parse};

    fn failed(error: &str) -> TaskError {
        let body = format!(r#"{{"token":"t","retryable":false,"error":{error}}}"#);
        parse::<FailRequest<'_>>(body.as_bytes()).unwrap().checked().unwrap().0
    }

    #[test]
    fn no_text_of_a_worker_is_refused_and_what_is_kept_is_bounded_and_says_that_it_was_cut() {
        for unit in ["x", r"\u00e4", r"\ud83d\ude00", r"\ud800", r"\n", r"\u0000", "ä", "😀", r"\\"] {
            for count in [1, 100, 200, 2_000, 5_000, 30_000] {
                let text = unit.repeat(count);
                let error = failed(&format!(r#"{{"message":"{text}","kind":"{text}","detail":["{text}"]}}"#));
                let detail = error.detail.unwrap();
                assert!(serde_json::from_slice::<&RawValue>(&detail).is_ok(), "{unit} {count}");
                for (kept, max) in [
                    (error.message, limits::ERROR_MESSAGE_MAX_BYTES),
                    (error.kind, limits::ERROR_KIND_MAX_BYTES),
                ] {
                    assert!(kept.len() <= max, "{unit} {count}: {} of {max}", kept.len());
                    assert!(
                        kept.chars().count() == count || kept.ends_with(" bytes]"),
                        "{unit} {count}: {kept}"
                    );
                }
                assert!(detail.len() <= limits::ERROR_DETAIL_MAX_BYTES, "{unit} {count}: {}", detail.len());
                let is_cut = text.len() + 4 > limits::ERROR_DETAIL_MAX_BYTES;
                assert_eq!(detail.starts_with(br#"{"cut":{"#), is_cut, "{unit} {count}");
            }
        }
        assert_eq!(failed(r#"{"message":"a\udc00b"}"#).message, "a\u{fffd}b");
    }
}
