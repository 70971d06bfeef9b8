//! Settings of a program: declared once, given by defaults, a file, the environment or flags (each goes before the one
//! named before it), and resolved in one pass that reports every mistake by the name under which the value was given.
//!
//! [`Setting`] declares one; its flag, its `BRISQ_...` variable and its name in the file follow from its name. [`Given`] is
//! what a start was given, [`Given::resolve`] reads the file and answers [`Settings`], which a program turns into values
//! of its own. [`Files`] remembers what was read, so that [`follow`] sees when it changes. A [`Secret`] is shown nowhere.
#![forbid(unsafe_code)]

mod address;
mod declared;
mod files;
mod follow;
mod given;
mod ready;
mod resolved;
mod secret;

pub use address::address;
pub use declared::Setting;
pub use files::Files;
pub use follow::{follow, outlive_hangups};
pub use given::{Given, flags};
pub use ready::write_ready_file;
pub use resolved::Settings;
pub use secret::{Secret, without_credentials};

/// Exit code of a program that was started wrongly.
pub const EXIT_USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &[Setting] = &[
        Setting::new("data", "DIR", "Where"),
        Setting::new("redis", "URL", "Which").many().secret(),
        Setting::new("listen", "ADDRESS", "Where").default("127.0.0.1:7070"),
        Setting::new("insecure", "", "Whether").switch(),
        Setting::new("threshold-ms", "MS", "How long").default("5"),
    ];

    fn resolve<T>(
        args: &[&str],
        file: &str,
        use_them: impl Fn(&mut Settings) -> T,
    ) -> Result<T, Vec<String>> {
        let command = Setting::command("brisq-test", "1", "A test", SETTINGS);
        let given =
            Given::of(SETTINGS, &command.try_get_matches_from([&["brisq-test"], args].concat()).unwrap());
        let file = file.to_owned();
        let mut settings = given.resolve(&mut Files::from_reader(move |_| Ok(file.clone())));
        let value = use_them(&mut settings);
        settings.finish().map(|()| value)
    }

    fn number(text: &str) -> Result<u64, String> {
        text.parse().map_err(|_| "is a whole number".to_owned())
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let listen = |args: &[&str], file: &str| resolve(args, file, |s| s.get("listen", address)).unwrap();
        assert_eq!(listen(&[], "").unwrap().port(), 7070);
        assert_eq!(listen(&["--config", "f"], "listen: 127.0.0.1:1").unwrap().port(), 1);
        let both = listen(&["--config", "f", "--listen", "localhost:2"], "listen: 127.0.0.1:1");
        assert_eq!(both.unwrap().to_string(), "127.0.0.1:2");
    }

    #[test]
    fn a_file_holds_text_numbers_truth_and_lists() {
        let file = "redis: [redis://a, redis://b]\ninsecure: true\nthreshold-ms: 7\ndata: 12\n";
        let all = resolve(&["--config", "f"], file, |s| {
            let urls = s.all("redis", |url| Ok(url.to_owned()));
            (urls, s.is_on("insecure"), s.get("threshold-ms", number), s.get("data", |t| Ok(t.to_owned())))
        });
        let (urls, insecure, threshold, data) = all.unwrap();
        assert_eq!(urls, ["redis://a", "redis://b"]);
        assert_eq!((insecure, threshold, data.as_deref()), (true, Some(7), Some("12")));
    }

    #[test]
    fn every_mistake_is_told_by_the_name_it_was_given_under() {
        let args = ["--config", "f.yaml", "--listen", "here", "--data", ""];
        let file = "threshold-ms: many\nflisten: 1\nredis: {a: b}\ninsecure: [true]\n";
        let mistakes = resolve(&args, file, |s| {
            s.get("listen", address);
            s.get("threshold-ms", number);
            s.get("data", |text| Ok(text.to_owned()));
        });
        let mistakes = mistakes.unwrap_err();
        for part in [
            "--listen here: is an address",
            "--data: is empty",
            "f.yaml: threshold-ms many: is a whole number",
            "f.yaml: there is no setting `flisten`",
            "f.yaml: `redis` takes a value or a list of them",
            "f.yaml: `insecure` takes one value",
        ] {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(part)), "{part}: {mistakes:#?}");
        }
    }

    #[test]
    fn a_secret_is_shown_by_no_mistake_and_no_help() {
        let refused = |_: &str| Err::<(), _>("begins with redis://".to_owned());
        for (args, file) in [
            (&["--redis", "hunter2"][..], ""),
            (&["--config", "f"][..], "redis: hunter2"),
            (&["--config", "f"][..], "redis: [hunter2"),
            (&["--config", "f"][..], "redis: [[hunter2]]"),
        ] {
            let mistakes = resolve(args, file, |s| drop(s.all("redis", refused))).unwrap_err().join("\n");
            assert!(!mistakes.contains("hunter2"), "{mistakes}");
        }
        let command = Setting::command("brisq-test", "1", "A test", SETTINGS);
        assert!(command.get_arguments().all(|arg| arg.get_env().is_none() || arg.is_hide_env_values_set()));
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }
}
