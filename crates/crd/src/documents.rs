//! The documents of a file.

use crate::manifest::{MANIFEST_MAX_BYTES, too_large};
use crate::{Manifest, Mistake, parse};

/// Most documents of a file.
const DOCUMENTS_MAX: usize = 100;

/// Reads the documents of a file and checks each. One without content is passed over, as `kubectl` does, unless there is
/// no other.
///
/// # Errors
/// When the file as a whole is too large; a mistake in a document stands at its place.
pub fn parse_all(yaml: &str) -> Result<Vec<Result<Manifest, Vec<Mistake>>>, Mistake> {
    if yaml.len() > MANIFEST_MAX_BYTES {
        return Err(too_large(yaml));
    }
    let documents = documents(yaml);
    if documents.len() > DOCUMENTS_MAX {
        let message =
            format!("a file has at most {DOCUMENTS_MAX} documents, this one has {}", documents.len());
        return Err(Mistake::at("", message));
    }
    if documents.is_empty() {
        return Ok(vec![parse(yaml)]);
    }
    // Lines keep their numbers.
    Ok(documents.into_iter().map(|(line, text)| parse(&("\n".repeat(line) + &text))).collect())
}

/// How many documents have content.
pub(crate) fn count(yaml: &str) -> usize {
    documents(yaml).len()
}

/// Documents with content, each with the number of lines before it.
fn documents(yaml: &str) -> Vec<(usize, String)> {
    let comment = |text: &str| text.trim_start().is_empty() || text.trim_start().starts_with('#');
    let mut documents = vec![(0, String::new())];
    for (number, line) in yaml.split_inclusive('\n').enumerate() {
        if line.strip_prefix("---").is_some_and(comment) {
            documents.push((number + 1, String::new()));
        } else if let Some((_, text)) = documents.last_mut() {
            text.push_str(line);
        }
    }
    documents.retain(|(_, text)| !text.lines().all(comment));
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: brisq.dev/v1alpha1\nkind: TaskQueue\nmetadata: {name: orders}\n";

    #[test]
    fn every_document_of_a_file_is_read_and_its_lines_keep_their_numbers() {
        let file = include_str!("../../../examples/orders-s3.yaml");
        let kinds: Vec<&str> =
            parse_all(file).unwrap().iter().map(|read| read.as_ref().unwrap().kind()).collect();
        assert_eq!(kinds, ["ProfilingPolicy", "TaskQueue"]);

        let file = format!(
            "# first\n---\n{HEAD}spec: {{}}\n--- # empty\n\n---\n{HEAD}spec: {{replicas: many}}\n---\n"
        );
        let read = parse_all(&file).unwrap();
        assert_eq!(read.len(), 2);
        assert!(read[0].is_ok());
        let told = read[1].as_ref().unwrap_err()[0].to_string();
        assert!(told.contains("line 13"), "{told}");
        assert_eq!(parse_all("# nothing").unwrap().len(), 1);
        assert!(parse_all("# nothing").unwrap()[0].is_err());
        assert!(parse_all(&"a\n---\n".repeat(DOCUMENTS_MAX + 1)).is_err());
    }
}
