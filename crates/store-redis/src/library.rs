//! The function library's text and name.

use sha2::{Digest, Sha256};

const TEXT: &str = include_str!("lua/library.lua");

/// The library as it is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    prefix: String,
    text: String,
}

impl Default for Library {
    fn default() -> Self {
        Self::of(TEXT)
    }
}

impl Library {
    fn of(text: &str) -> Self {
        let hash = Sha256::digest(text.as_bytes());
        let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let prefix = format!("brisq_{short}");
        let text = format!("#!lua name={prefix}\n{}", text.replace("PREFIX", &prefix));
        Self { prefix, text }
    }

    /// Name of the function that this program calls.
    pub(crate) fn function(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }

    /// What is loaded.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_text_has_other_names() {
        assert_ne!(Library::of("a").function("work"), Library::of("b").function("work"));
        assert!(Library::default().text().starts_with("#!lua name=brisq_"));
    }
}
