//! A file, cut into its documents.

/// Documents with content, each behind as many empty lines as stand before it, so that its lines keep their numbers.
pub(crate) fn split(yaml: &str) -> Vec<String> {
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
    documents.into_iter().map(|(lines, text)| "\n".repeat(lines) + &text).collect()
}
