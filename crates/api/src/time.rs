use brisq_model::UnixMs;

/// `2026-11-23T13:05:09.042Z`: RFC 3339 in UTC, always with milliseconds.
#[must_use]
pub fn rfc3339(at: UnixMs) -> String {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| "9999-12-30T22:00:00.000Z".to_owned(), |t| format!("{t:.3}"))
}

/// Reads RFC 3339 with any offset; times before 1970 are 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<UnixMs> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(UnixMs(u64::try_from(at.as_millisecond()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_milliseconds() {
        assert_eq!(rfc3339(UnixMs(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(UnixMs(1_700_000_000_042)), "2023-11-14T22:13:20.042Z");
        assert_eq!(parse_rfc3339("2023-11-14T23:13:20.042+01:00"), Some(UnixMs(1_700_000_000_042)));
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(rfc3339(UnixMs(u64::MAX)).len(), 24);
    }
}
