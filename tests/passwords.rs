//! Passwords from flag, environment, file, and typed on a terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod support;

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use support::daemon::Lab;
use support::eventually;

const VARIABLE: &str = "WEBMON_DATABASE_PASSWORD";

/// A lab whose environment has no password.
fn lab(name: &str) -> Lab {
    let mut lab = Lab::new(name);
    lab.env.remove(VARIABLE);
    lab
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command on a terminal of its own.
struct Session {
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Session {
    #[allow(clippy::disallowed_methods)] // a reader that ends with its pipe
    fn start(lab: &Lab, words: &str) -> Self {
        let line = format!("{} {words}", env!("CARGO_BIN_EXE_webmon"));
        let mut child = Command::new("script")
            .args(["-q", "-e", "-c", &line, "/dev/null"])
            .env_clear()
            .envs(&lab.env)
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("SHELL", "/bin/sh")
            .current_dir(lab.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script (util-linux) runs");
        let (mut out, seen) = (child.stdout.take().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let sink = seen.clone();
        std::thread::spawn(move || {
            let mut part = [0; 1024];
            while let Ok(count @ 1..) = out.read(&mut part) {
                sink.lock().unwrap().extend_from_slice(&part[..count]);
            }
        });
        Self { child, seen }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// Whether the terminal shows what is typed: the prompt is there a moment before it doesn't.
    fn has_echo(&self) -> bool {
        let children = |pid: u32| -> Vec<u32> {
            let path = format!("/proc/{pid}/task/{pid}/children");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
        };
        let mut pid = self.child.id();
        while let [child, ..] = children(pid).as_slice() {
            pid = *child;
        }
        let terminal = std::fs::File::open(format!("/proc/{pid}/fd/0"));
        let modes = terminal.and_then(|file| Ok(rustix::termios::tcgetattr(file)?.local_modes));
        modes.map_or(true, |modes| modes.contains(rustix::termios::LocalModes::ECHO))
    }

    /// Types `password` when asked; what was shown, and the exit code.
    fn answer(mut self, password: &str) -> (String, Option<i32>) {
        eventually("the prompt", || {
            let text = self.text();
            let is_asked = text.contains("at PostgreSQL") && text.ends_with(": ");
            if is_asked && !self.has_echo() { Ok(()) } else { Err(text) }
        });
        let mut input = self.child.stdin.take().unwrap();
        input.write_all(format!("{password}\n").as_bytes()).unwrap();
        let status = eventually("its end", || self.child.try_wait().unwrap().ok_or(0));
        drop(input);
        let text = eventually("all it said", || {
            let text = self.text();
            if text.ends_with('\n') { Ok(text) } else { Err(text) }
        });
        (text, status.code())
    }
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let lab = lab("asked");
    let right = lab.database.password.clone();
    for words in ["migrate -W", "migrate --ask-password", "migrate"] {
        let (text, code) = Session::start(&lab, words).answer(&right);
        assert_eq!(code, Some(0), "{words}: {text}");
        let prompt = format!("Password of '{}' at PostgreSQL", lab.database.user);
        assert!(text.contains(&prompt), "{words}: {text}");
        assert_eq!(text.matches("Password of").count(), 1, "{words}: {text}");
        assert!(text.contains("applied") || text.contains("up to date"), "{words}: {text}");
        let (_, typed) = text.split_once(": ").unwrap();
        assert!(typed.starts_with("\r\n"), "{words}: something was shown: {text}");
    }
}

#[test]
fn a_wrong_one_is_2_with_the_servers_words() {
    let lab = lab("wrong");
    for words in ["migrate -W", "migrate"] {
        let (text, code) = Session::start(&lab, words).answer("not-the-password");
        assert_eq!(code, Some(2), "{words}: {text}");
        assert!(text.contains("password authentication failed"), "{words}: {text}");
        assert!(!text.contains("not-the-password"), "{words}: {text}");
        assert_eq!(text.matches("Password of").count(), 1, "asked once: {text}");
    }
    let (text, code) = Session::start(&lab, "migrate -W").answer("");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("nothing was typed"), "{text}");
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let lab = lab("no_terminal");
    // Away from the terminal that the tests may run on.
    let run = |args: &[&str]| {
        let mut command = Command::new("setsid");
        command.arg("-w").arg(env!("CARGO_BIN_EXE_webmon")).args(args).env_clear().envs(&lab.env);
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.current_dir(lab.dir.path()).stdin(Stdio::null()).output().unwrap()
    };
    let output = run(&["migrate"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("password missing"), "{}", stderr(&output));
    let output = run(&["migrate", "-W"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("WEBMON_DATABASE_PASSWORD_FILE"), "{}", stderr(&output));
}

#[test]
fn flag_variable_file_and_old_name_give_it() {
    let mut lab = lab("given");
    let right = lab.database.password.clone();
    let run = |lab: &Lab, args: &[&str], expected: i32| {
        let output = lab.run(args);
        assert_eq!(output.status.code(), Some(expected), "{args:?}: {}", stderr(&output));
        stderr(&output)
    };
    run(&lab, &["migrate", "--database-password", &right], 0);
    run(&lab, &["--database-password", &right, "migrate"], 0);
    let said = run(&lab, &["migrate", "--database-password", "hunter2"], 2);
    assert!(said.contains("password authentication failed") && !said.contains("hunter2"), "{said}");
    run(&lab, &["migrate", "-W", "--database-password", &right], 2);

    lab.set("DATABASE_PASSWD", &right);
    run(&lab, &["migrate"], 0);
    // Ours wins over the old name, the flag over both.
    lab.set(VARIABLE, "wrong");
    run(&lab, &["migrate"], 2);
    run(&lab, &["migrate", "--database-password", &right], 0);
    lab.env.remove(VARIABLE);
    lab.env.remove("DATABASE_PASSWD");
    std::fs::write(lab.dir.path().join("password"), format!("{right}\n")).unwrap();
    lab.set("WEBMON_DATABASE_PASSWORD_FILE", "password");
    run(&lab, &["migrate"], 0);
    lab.env.remove("WEBMON_DATABASE_PASSWORD_FILE");

    // Kafka's is of no use without a user, and is taken with one.
    assert!(run(&lab, &["tail", "--kafka-password", "x"], 2).contains("kafka.sasl.user"));
    lab.set("WEBMON_KAFKA_SASL_USER", "u");
    assert!(run(&lab, &["config", "check"], 2).contains("without a password"));
    run(&lab, &["config", "check", "--kafka-password", "x"], 0);
    let shown = lab.run(&["config", "show", "--kafka-password", "hunter2"]);
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("hunter2"));
}

#[test]
fn the_broker_is_asked_for_where_a_user_is_set_without() {
    let mut lab = lab("asked_kafka");
    lab.set("WEBMON_KAFKA_SASL_USER", "somebody");
    let right = lab.database.password.clone();
    let mut session = Session::start(&lab, "migrate -W");
    let wait = |session: &Session, part: &str| {
        eventually("a prompt", || {
            let text = session.text();
            let is_asked = text.contains(part) && text.ends_with(": ");
            if is_asked && !session.has_echo() { Ok(()) } else { Err(text) }
        });
    };
    wait(&session, "at PostgreSQL");
    let mut input = session.child.stdin.take().unwrap();
    input.write_all(format!("{right}\n").as_bytes()).unwrap();
    wait(&session, "Password of 'somebody' at Kafka ");
    input.write_all(b"hunter2\n").unwrap();
    let status = eventually("its end", || session.child.try_wait().unwrap().ok_or(0));
    assert_eq!(status.code(), Some(0), "{}", session.text());
    assert!(!session.text().contains("hunter2"), "{}", session.text());
}
