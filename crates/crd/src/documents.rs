//! Where the documents of a file begin and end. What they say is the business of `manifest`.

/// Documents with content, each with the number of lines before it.
pub(crate) fn documents(yaml: &str) -> Vec<(usize, String)> {
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
