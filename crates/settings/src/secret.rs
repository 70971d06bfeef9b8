use std::fmt;

/// A value that is shown nowhere: no log, error or panic that prints it holds more than `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides the value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for where it is used.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The text with `***` in place of user and password of the URLs in it.
#[must_use]
pub fn without_credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        shown.push_str(before);
        let end =
            behind.find(|c: char| c.is_whitespace() || matches!(c, '/' | '\'' | '"')).unwrap_or(behind.len());
        // A password may hold an `@` and even a `/`: all up to the last `@` of the word is hidden.
        let word = behind.find(char::is_whitespace).unwrap_or(behind.len());
        let credentials = behind.get(..word).and_then(|word| word.rfind('@'));
        match credentials {
            Some(at) => {
                shown.push_str("***");
                rest = behind.get(at..).unwrap_or_default();
            }
            None => {
                shown.push_str(behind.get(..end).unwrap_or_default());
                rest = behind.get(end..).unwrap_or_default();
            }
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_credentials() {
        for (text, shown) in [
            ("plain", "plain"),
            ("redis://h:6379/0", "redis://h:6379/0"),
            ("redis://:pw@h:6379", "redis://***@h:6379"),
            ("'rediss://u:p/w@x@h' and redis://a", "'rediss://***@h' and redis://a"),
            ("a redis://u:p@h,redis://u:p@i b", "a redis://***@i b"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }
}
