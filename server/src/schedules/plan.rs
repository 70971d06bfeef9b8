//! Which ticks of a schedule are fired at a moment, and when it is looked at next.

use brisq_api::{Missed, ScheduleSpec};
use brisq_model::{UnixMs, limits};

use super::calendar::Calendar;

/// What is to be done for a schedule whose tick has come.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ticks to fire, the oldest first.
    pub fire: Vec<UnixMs>,
    /// The last tick that is left out because it is too late.
    pub missed: Option<UnixMs>,
    /// The first tick behind them.
    pub next_at: Option<UnixMs>,
}

/// The first tick of a schedule that was made or changed at `wall`: none from before it.
pub fn first(spec: &ScheduleSpec, calendar: &Calendar, wall: UnixMs) -> Option<UnixMs> {
    if spec.paused {
        return None;
    }
    let at = match spec.start_at.map(UnixMs) {
        Some(start) if start > wall => calendar.from(start),
        _ => calendar.after(wall),
    };
    at.filter(|at| !is_over(spec, *at))
}

/// What is to be done at `wall` for a schedule whose next tick was `due`.
pub fn at(spec: &ScheduleSpec, calendar: &Calendar, due: UnixMs, wall: UnixMs) -> Plan {
    // The last moment for which a tick is in time.
    let in_time = UnixMs(wall.0.saturating_sub(limits::TICK_MISSED_AFTER_MS)).max(due);
    // What was missed ended with the schedule.
    let last = spec.end_at.map_or(wall, |end| wall.min(UnixMs(end)));
    let begin = match spec.missed {
        Missed::All => Some(due),
        Missed::Skip => calendar.from(in_time),
        Missed::One if in_time == due => Some(due),
        Missed::One => calendar.until(last).map(|last| last.max(due)),
    };
    let missed = begin.and_then(|begin| calendar.until(UnixMs(begin.0.saturating_sub(1)).min(last)));
    let mut plan = Plan { missed: missed.filter(|at| *at >= due), ..Plan::default() };
    let mut next = begin.filter(|at| !is_over(spec, *at));
    while let Some(tick) = next.filter(|tick| *tick <= wall)
        && plan.fire.len() < limits::TICKS_AT_A_TIME_MAX
    {
        plan.fire.push(tick);
        next = calendar.after(tick).filter(|at| !is_over(spec, *at));
    }
    plan.next_at = next;
    plan
}

fn is_over(spec: &ScheduleSpec, at: UnixMs) -> bool {
    spec.end_at.is_some_and(|end| at.0 > end)
}

#[cfg(test)]
mod tests {
    use brisq_api::{parse_rfc3339, rfc3339};
    use serde_json::json;

    use super::*;

    fn time(text: &str) -> UnixMs {
        parse_rfc3339(&format!("2026-11-30T{text}Z")).unwrap()
    }

    fn spec(missed: &str, more: serde_json::Value) -> ScheduleSpec {
        let mut spec = json!({
            "queue": "q", "cron": "*/10 * * * *", "timeZone": "UTC", "task": {"payload": 1}, "overlap": "allow", "missed": missed,
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_str(&spec.to_string()).unwrap()
    }

    fn shown(at: Option<UnixMs>) -> String {
        at.map_or_else(|| "-".to_owned(), |at| rfc3339(at)[11..16].to_owned())
    }

    #[test]
    fn what_is_late_is_fired_as_the_schedule_says() {
        let calendar = Calendar::of("*/10 * * * *", "UTC").unwrap();
        // (missed, due, wall) -> ticks that are fired; the last one left out; the next
        for (missed, due, wall, fired, left_out, next) in [
            ("skip", "12:00", "12:00:00", "12:00", "-", "12:10"),
            ("skip", "12:00", "12:00:59", "12:00", "-", "12:10"),
            ("skip", "12:00", "12:01:00", "12:00", "-", "12:10"),
            ("skip", "12:00", "12:01:01", "", "12:00", "12:10"),
            ("skip", "12:00", "12:10:30", "12:10", "12:00", "12:20"),
            ("skip", "12:00", "23:05:00", "", "23:00", "23:10"),
            ("one", "12:00", "12:00:30", "12:00", "-", "12:10"),
            ("one", "12:00", "12:05:00", "12:00", "-", "12:10"),
            ("one", "12:00", "12:35:00", "12:30", "12:20", "12:40"),
            ("one", "12:00", "12:30:20", "12:30", "12:20", "12:40"),
            ("all", "12:00", "12:00:30", "12:00", "-", "12:10"),
            ("all", "12:00", "12:35:00", "12:00 12:10 12:20 12:30", "-", "12:40"),
            ("all", "12:10", "12:05:00", "", "-", "12:10"),
            ("skip", "12:10", "12:05:00", "", "-", "12:10"),
            ("one", "12:10", "12:05:00", "", "-", "12:10"),
        ] {
            let row = format!("{missed}: due {due}, now {wall}");
            let plan = at(&spec(missed, json!({})), &calendar, time(&format!("{due}:00")), time(wall));
            let ticks: Vec<String> = plan.fire.iter().map(|at| shown(Some(*at))).collect();
            assert_eq!(ticks.join(" "), fired, "{row}");
            assert_eq!(
                (shown(plan.missed).as_str(), shown(plan.next_at).as_str()),
                (left_out, next),
                "{row}"
            );
        }
    }

    #[test]
    fn nothing_fires_before_the_start_after_the_end_or_while_it_rests() {
        let calendar = Calendar::of("*/10 * * * *", "UTC").unwrap();
        let ms = |text: &str| time(text).0;
        for (more, wall, next) in [
            (json!({}), "12:00:00", "12:10"),
            (json!({"paused": true}), "12:00:00", "-"),
            (json!({"startAt": ms("13:00:00")}), "12:00:00", "13:00"),
            (json!({"startAt": ms("13:00:01")}), "12:00:00", "13:10"),
            (json!({"startAt": ms("11:00:00")}), "12:00:00", "12:10"),
            (json!({"endAt": ms("12:10:00")}), "12:00:00", "12:10"),
            (json!({"endAt": ms("12:09:59")}), "12:00:00", "-"),
        ] {
            assert_eq!(
                shown(first(&spec("all", more.clone()), &calendar, time(wall))),
                next,
                "{more} {wall}"
            );
        }
        let ends = spec("all", json!({"endAt": ms("12:15:00")}));
        let plan = at(&ends, &calendar, time("12:00:00"), time("12:35:00"));
        assert_eq!((plan.fire, plan.next_at), (vec![time("12:00:00"), time("12:10:00")], None));
        let ends = spec("one", json!({"endAt": ms("12:15:00")}));
        let plan = at(&ends, &calendar, time("12:00:00"), time("12:35:00"));
        let made_good = Plan { fire: vec![time("12:10:00")], missed: Some(time("12:00:00")), next_at: None };
        assert_eq!(plan, made_good, "the last tick before the end");
    }

    #[test]
    fn a_long_absence_is_made_good_in_slices() {
        let calendar = Calendar::of("* * * * *", "UTC").unwrap();
        let (mut due, wall) = (time("00:00:00"), time("23:59:30"));
        let mut fired = Vec::new();
        while due <= wall {
            let plan = at(&spec("all", json!({})), &calendar, due, wall);
            assert!(plan.fire.len() <= limits::TICKS_AT_A_TIME_MAX);
            fired.extend(plan.fire);
            due = plan.next_at.unwrap();
        }
        assert_eq!(fired.len(), 24 * 60);
        assert!(fired.is_sorted() && fired.windows(2).all(|two| two[0] < two[1]));
    }
}
