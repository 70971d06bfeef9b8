//! When a schedule's ticks come: its cron expression in its time zone.

use brisq_api::ApiError;
use brisq_model::UnixMs;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Longest cron expression, bytes.
const CRON_MAX_BYTES: usize = 256;
/// Names of the five fields, as a mistake names them.
const FIELDS: [&str; 5] = ["minute", "hour", "day of the month", "month", "day of the week"];

/// The ticks of a cron expression in a time zone.
#[derive(Debug)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

impl Calendar {
    /// Reads both.
    ///
    /// # Errors
    /// `cron` with the field of it that is wrong, or `timeZone`.
    pub fn of(cron: &str, time_zone: &str) -> Result<Self, ApiError> {
        let zone = TimeZone::get(time_zone).map_err(|_| {
            let message =
                "`timeZone` is a name of the IANA time zone database, such as `Europe/Berlin` or `UTC`.";
            ApiError::invalid_field("timeZone", message).with("value", time_zone)
        })?;
        Ok(Self { cron: parsed(cron)?, zone })
    }

    /// The first tick after this time; none when there never is one again.
    pub fn after(&self, at: UnixMs) -> Option<UnixMs> {
        self.next(at, false)
    }

    /// The first tick at this time or after it.
    pub fn from(&self, at: UnixMs) -> Option<UnixMs> {
        self.next(at, true)
    }

    /// The last tick at this time or before it.
    pub fn until(&self, at: UnixMs) -> Option<UnixMs> {
        ms(&self.cron.find_previous_occurrence(&self.zoned(at)?, true).ok()?)
    }

    fn next(&self, at: UnixMs, inclusive: bool) -> Option<UnixMs> {
        ms(&self.cron.find_next_occurrence(&self.zoned(at)?, inclusive).ok()?)
    }

    fn zoned(&self, at: UnixMs) -> Option<Zoned> {
        let at = Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
        Some(at.to_zoned(self.zone.clone()))
    }
}

fn ms(at: &Zoned) -> Option<UnixMs> {
    u64::try_from(at.timestamp().as_millisecond()).ok().map(UnixMs)
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build()
}

fn parsed(text: &str) -> Result<Cron, ApiError> {
    let wrong = |message: String| ApiError::invalid_field("cron", message).with("value", text);
    if text.len() > CRON_MAX_BYTES {
        let message = format!("`cron` has at most {CRON_MAX_BYTES} bytes.");
        return Err(ApiError::invalid_field("cron", message));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if text.trim_start().starts_with('@') {
        return parser().parse(text).map_err(|_| {
            wrong("`cron` is @hourly, @daily, @weekly, @monthly, @yearly, or five fields.".to_owned())
        });
    }
    if fields.len() != FIELDS.len() {
        let message = format!(
            "`cron` has five fields ({}), and this one has {}. `*/15 8-18 * * MON-FRI` is every quarter of an hour of working days.",
            FIELDS.join(", "),
            fields.len()
        );
        return Err(wrong(message));
    }
    parser().parse(text).map_err(|error| match wrong_field(&fields) {
        Some((name, value)) => {
            wrong(format!("The {name} of `cron` is wrong: `{value}`. {error}")).with("cronField", name)
        }
        None => wrong(format!("`cron` is wrong. {error}")),
    })
}

/// The first field that is wrong where all others say nothing.
fn wrong_field<'a>(fields: &[&'a str]) -> Option<(&'static str, &'a str)> {
    FIELDS.iter().zip(fields).enumerate().find_map(|(place, (name, value))| {
        let mut alone = ["*"; FIELDS.len()];
        *alone.get_mut(place)? = value;
        parser().parse(&alone.join(" ")).is_err().then_some((*name, *value))
    })
}

#[cfg(test)]
mod tests {
    use brisq_api::{parse_rfc3339, rfc3339};

    use super::*;

    fn ticks(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let calendar = Calendar::of(cron, zone).unwrap();
        let first = calendar.after(parse_rfc3339(after).unwrap());
        let ticks = std::iter::successors(first, |at| calendar.after(*at));
        ticks.take(count).map(|at| rfc3339(at)[..16].to_owned()).collect()
    }

    #[test]
    fn ticks_come_as_the_expression_says_where_the_clocks_are_changed_too() {
        // Berlin goes from 02:00 to 03:00 on 2026-03-29 at 01:00 UTC, and from 03:00 back to 02:00 on 2026-10-25 at 01:00 UTC.
        type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);
        let rows: [Row; 15] = [
            (
                "*/15 8-18 * * MON-FRI",
                "UTC",
                "2026-11-27T18:31:00Z",
                &["2026-11-27T18:45", "2026-11-30T08:00"],
            ),
            ("@hourly", "UTC", "2026-11-27T18:00:00Z", &["2026-11-27T19:00"]),
            ("@daily", "America/New_York", "2026-07-01T00:00:00Z", &["2026-07-01T04:00"]),
            ("0 0 L * *", "UTC", "2026-02-01T00:00:00Z", &["2026-02-28T00:00", "2026-03-31T00:00"]),
            ("0 9 15W * *", "UTC", "2026-11-01T00:00:00Z", &["2026-11-16T09:00"]),
            ("0 9 * * MON#1", "UTC", "2026-11-03T00:00:00Z", &["2026-12-07T09:00"]),
            ("0 0 13 * FRI", "UTC", "2026-11-11T00:00:00Z", &["2026-11-13T00:00", "2026-11-20T00:00"]),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00"]),
            // Left out by the clock: fired when the gap ends. The day after it is at its time again.
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T12:00:00Z",
                &["2026-03-29T01:00", "2026-03-30T00:30"],
            ),
            (
                "*/30 * * * *",
                "Europe/Berlin",
                "2026-03-29T00:15:00Z",
                &["2026-03-29T00:30", "2026-03-29T01:00"],
            ),
            ("0 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", &["2026-03-29T01:00", "2026-03-29T02:00"]),
            // Comes twice: a time of day is fired the first time, what goes on through the hours in both.
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-10-24T12:00:00Z",
                &["2026-10-25T00:30", "2026-10-26T01:30"],
            ),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", &["2026-10-26T01:30"]),
            (
                "*/30 * * * *",
                "Europe/Berlin",
                "2026-10-25T00:15:00Z",
                &["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00"],
            ),
            (
                "0 * * * *",
                "Australia/Lord_Howe",
                "2026-04-04T13:30:00Z",
                &["2026-04-04T14:00", "2026-04-04T15:30"],
            ),
        ];
        for (cron, zone, after, expected) in rows {
            assert_eq!(ticks(cron, zone, after, expected.len()), expected, "{cron} in {zone} after {after}");
        }
    }

    #[test]
    fn each_tick_is_found_from_both_sides() {
        for zone in ["Europe/Berlin", "America/St_Johns", "UTC"] {
            for cron in ["*/7 * * * *", "0 */5 * * *", "15 1,2,3 * * SUN"] {
                let calendar = Calendar::of(cron, zone).unwrap();
                let mut at = parse_rfc3339("2026-10-20T00:00:00Z").unwrap();
                for _ in 0..400 {
                    let next = calendar.after(at).unwrap();
                    assert_eq!(calendar.from(next), Some(next), "{cron} in {zone}");
                    assert_eq!(calendar.until(next), Some(next), "{cron} in {zone} at {}", rfc3339(next));
                    assert_eq!(
                        calendar.until(UnixMs(next.0 - 1)).map(|last| last <= at.max(last)),
                        Some(true)
                    );
                    assert!(next > at);
                    at = next;
                }
            }
        }
    }

    #[test]
    fn a_mistake_names_its_field() {
        for (cron, part) in [
            ("", "five fields"),
            ("* * * *", "and this one has 4"),
            ("* * * * * *", "and this one has 6"),
            ("60 * * * *", "The minute of"),
            ("* 24 * * *", "The hour of"),
            ("* * 0 * *", "The day of the month of"),
            ("* * * JANUARY *", "The month of"),
            ("* * * * MON#9", "The day of the week of"),
            ("*/0 61 * * *", "The minute of"),
            ("@reboot", "@hourly, @daily"),
            ("@hourly @daily", "@hourly, @daily"),
            ("ä * * * *", "The minute of"),
            (&"* ".repeat(200), "256 bytes"),
        ] {
            let error = Calendar::of(cron, "UTC").unwrap_err();
            assert_eq!(error.envelope().error.detail["field"], "cron", "{cron}");
            assert!(error.message.contains(part), "{cron}: {}", error.message);
        }
        for zone in ["", "Berlin", "Europe/Berlin ", "../etc/passwd", "EST5EDT,M3.2.0"] {
            let error = Calendar::of("@daily", zone).unwrap_err();
            assert_eq!(error.envelope().error.detail["field"], "timeZone", "{zone}");
        }
    }

    #[test]
    fn what_never_comes_has_no_tick() {
        for cron in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
            assert_eq!(Calendar::of(cron, "UTC").unwrap().after(UnixMs(1_700_000_000_000)), None, "{cron}");
        }
    }
}
