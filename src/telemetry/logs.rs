//! Log lines on stderr: an event with its fields, as text or as JSON, always one line each.
//!
//! Text: `2026-01-01T00:00:00.000Z [WARN] (publisher) [src/x.rs:12] broker unreachable retry_in_ms=500`.
//! JSON: one object with `time`, `level`, `event`, `thread`, `file` and the fields beside them; a
//! field with one of these names gets `field_` in front.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{CombinedLogger, Config, ConfigBuilder, SharedLogger, ThreadLogMode, WriteLogger};

use crate::runtime::now;

/// Crates whose lines below a warning are about their own insides, and may hold URLs with
/// credentials.
const QUIET: [&str; 11] = [
    "rustls",
    "ureq",
    "ureq_proto",
    "redb",
    "tokio_postgres",
    "tokio_postgres_rustls",
    "postgres",
    "r2d2",
    "rustfs_kafka",
    "kafka",
    "kafka_protocol",
];

/// What is logged, and how.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// The least important level that is written.
    pub level: LevelFilter,
    /// JSON instead of text.
    pub json: bool,
}

/// Installs the process's logger, on stderr. A second call only changes the level.
pub fn init(options: LogOptions) {
    let logger = if options.json { json(io::stderr()) } else { text(io::stderr()) };
    // Fails when there is one already: then that one stays.
    let _ = CombinedLogger::init(vec![logger]);
    log::set_max_level(options.level);
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let crate_name = target.split("::").next().unwrap_or(target);
    metadata.level() <= Level::Warn || !QUIET.contains(&crate_name)
}

/// The time in front of a line: UTC, milliseconds.
fn time() -> String {
    format!("{:.3}", now().wall)
}

/// Collects a line and hands it on whole, so that lines of several processes on one stderr don't
/// mix. A reader that is gone is no reason to end a daemon: errors are ignored.
struct Lines<W> {
    line: Vec<u8>,
    /// Whether each line begins with the time.
    has_time: bool,
    out: W,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_time && self.line.is_empty() {
            self.line.extend_from_slice(time().as_bytes());
            self.line.push(b' ');
        }
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            let _ = self.out.write_all(&self.line);
            self.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.out.flush();
        Ok(())
    }
}

/// Puts the fields behind the event, which simplelog doesn't write, and hands the record on.
struct Text<W: Write + Send + 'static> {
    inner: Box<WriteLogger<Lines<W>>>,
}

fn text<W: Write + Send + 'static>(out: W) -> Box<dyn SharedLogger> {
    // The time is ours: simplelog reads the clock by itself, and has no format with milliseconds.
    let config = ConfigBuilder::new()
        .set_time_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Error)
        .set_thread_mode(ThreadLogMode::Names)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Error)
        .build();
    // The level is the `log` crate's: it can be changed.
    let lines = Lines { line: Vec::new(), has_time: true, out };
    Box::new(Text { inner: WriteLogger::new(LevelFilter::Trace, config, lines) })
}

/// Appends `text` with control characters (and, when quoted, quotes and backslashes) escaped.
fn escape(text: &str, is_quoted: bool, out: &mut String) {
    for c in text.chars() {
        match c {
            '"' | '\\' if is_quoted => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // The last two end a line for some readers.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

struct TextFields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for TextFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let value = value.to_string();
        let is_plain = |c: char| {
            c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\')
                || !c.is_ascii() && !c.is_control() && !c.is_whitespace()
        };
        self.0.push(' ');
        escape(key.as_str(), false, self.0);
        self.0.push('=');
        if !value.is_empty() && value.chars().all(is_plain) {
            self.0.push_str(&value);
        } else {
            self.0.push('"');
            escape(&value, true, self.0);
            self.0.push('"');
        }
        Ok(())
    }
}

impl<W: Write + Send + 'static> Log for Text<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !is_wanted(record.metadata()) {
            return;
        }
        let mut message = String::new();
        escape(&record.args().to_string(), false, &mut message);
        // The visitor never fails.
        let _ = record.key_values().visit(&mut TextFields(&mut message));
        let args = format_args!("{message}");
        self.inner.log(
            &Record::builder()
                .metadata(record.metadata().clone())
                .args(args)
                .module_path(record.module_path())
                .file(record.file())
                .line(record.line())
                .build(),
        );
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

impl<W: Write + Send + 'static> SharedLogger for Text<W> {
    fn level(&self) -> LevelFilter {
        LevelFilter::Trace
    }

    fn config(&self) -> Option<&Config> {
        self.inner.config()
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

/// One JSON object a line.
struct Json<W> {
    out: Mutex<Lines<W>>,
}

fn json<W: Write + Send + 'static>(out: W) -> Box<dyn SharedLogger> {
    Box::new(Json { out: Mutex::new(Lines { line: Vec::new(), has_time: false, out }) })
}

/// An object under construction.
struct Object {
    text: String,
    names: Vec<String>,
}

impl Object {
    fn name(&mut self, name: &str) {
        self.text.push(if self.names.is_empty() { '{' } else { ',' });
        self.string(name);
        self.text.push(':');
        self.names.push(name.to_owned());
    }

    fn string(&mut self, text: &str) {
        // A string always has a JSON form.
        self.text.push_str(&serde_json::to_string(text).unwrap_or_default());
    }

    fn pair(&mut self, name: &str, text: &str) {
        self.name(name);
        self.string(text);
    }
}

impl<'kvs> VisitSource<'kvs> for Object {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut name = key.to_string();
        while self.names.contains(&name) {
            name.insert_str(0, "field_");
        }
        self.name(&name);
        value.visit(self)
    }
}

impl<'v> VisitValue<'v> for &mut Object {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.string(&value.to_string());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.text.push_str("null");
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        let _ = write!(self.text, "{value}");
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        let _ = write!(self.text, "{value}");
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        if value.is_finite() {
            let _ = write!(self.text, "{value}");
        } else {
            self.string(&value.to_string());
        }
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        let _ = write!(self.text, "{value}");
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.string(value);
        Ok(())
    }
}

impl<W: Write + Send + 'static> Log for Json<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !is_wanted(record.metadata()) {
            return;
        }
        let mut object = Object { text: String::new(), names: Vec::new() };
        object.pair("time", &time());
        object.pair("level", record.level().as_str());
        object.pair("event", &record.args().to_string());
        object.pair("thread", std::thread::current().name().unwrap_or(""));
        let (file, line) = (record.file().unwrap_or(""), record.line().unwrap_or(0));
        object.pair("file", &format!("{file}:{line}"));
        let _ = record.key_values().visit(&mut object);
        object.text.push_str("}\n");
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(object.text.as_bytes());
    }

    fn flush(&self) {
        let _ = self.out.lock().unwrap_or_else(PoisonError::into_inner).flush();
    }
}

impl<W: Write + Send + 'static> SharedLogger for Json<W> {
    fn level(&self) -> LevelFilter {
        LevelFilter::Trace
    }

    fn config(&self) -> Option<&Config> {
        None
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(make: fn(Page) -> Box<dyn SharedLogger>, write: impl Fn(&dyn Log)) -> Vec<String> {
        let page = Page::default();
        write(make(page.clone()).as_log().as_ref());
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn write(
        logger: &dyn Log,
        target: &str,
        level: Level,
        event: &str,
        fields: &[(&str, Value<'_>)],
    ) {
        logger.log(
            &Record::builder()
                .target(target)
                .level(level)
                .args(format_args!("{event}"))
                .file(Some("src/x.rs"))
                .line(Some(12))
                .key_values(&fields)
                .build(),
        );
    }

    fn sample(logger: &dyn Log) {
        let name = "two words \"quoted\"\nand a line";
        let fields = [
            ("servers", Value::from("a:1,b:2")),
            ("retry_in_ms", Value::from(500u64)),
            ("ratio", Value::from(0.5)),
            ("ok", Value::from(false)),
            ("name", Value::from(name)),
            ("nothing", Value::from("")),
            ("level", Value::from(-3)),
            ("nan", Value::from(f64::NAN)),
        ];
        write(logger, "webmon::x", Level::Warn, "broker\nunreachable", &fields);
    }

    #[test]
    fn text_is_one_line_with_fields() {
        let lines = lines(text, sample);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let (time, rest) = lines[0].split_once(' ').unwrap();
        assert_eq!((time.len(), &time[10..11], &time[23..]), (24, "T", "Z"), "{time}");
        assert!(time.parse::<jiff::Timestamp>().is_ok());
        let (thread, rest) = rest.split_once(") [").unwrap();
        assert!(thread.starts_with("[WARN] (") && thread.ends_with("text_is_one_line_with_fields"));
        assert_eq!(
            rest,
            r#"src/x.rs:12] broker\nunreachable servers=a:1,b:2 retry_in_ms=500 ratio=0.5 ok=false name="two words \"quoted\"\nand a line" nothing="" level=-3 nan=NaN"#
        );
    }

    #[test]
    fn json_is_one_object_with_fields() {
        let lines = lines(json, sample);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let mut object: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        let object = object.as_object_mut().unwrap();
        let time = object.remove("time").unwrap();
        assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert_eq!(time.as_str().unwrap().len(), 24, "{time}");
        object.remove("thread").unwrap();
        let wanted = serde_json::json!({
            "level": "WARN", "event": "broker\nunreachable", "file": "src/x.rs:12",
            "servers": "a:1,b:2", "retry_in_ms": 500, "ratio": 0.5, "ok": false,
            "name": "two words \"quoted\"\nand a line", "nothing": "", "field_level": -3,
            "nan": "NaN",
        });
        assert_eq!(serde_json::Value::Object(object.clone()), wanted);
    }

    #[test]
    fn other_crates_are_quiet_below_a_warning() {
        for make in [text, json] {
            let lines = lines(make, |logger| {
                write(logger, "rustls::conn", Level::Debug, "no", &[]);
                write(logger, "ureq", Level::Info, "no", &[]);
                write(logger, "rustls::conn", Level::Warn, "yes", &[]);
                write(logger, "rustlsish", Level::Debug, "yes", &[]);
                write(logger, "webmon::probe", Level::Trace, "yes", &[]);
            });
            assert_eq!(lines.len(), 3, "{lines:?}");
            assert!(lines.iter().all(|line| line.contains("yes")));
        }
    }
}
