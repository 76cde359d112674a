//! Completions as a shell loads them, and manual pages as a formatter reads them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn webmon(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webmon"));
    // Neither needs a configuration, a good one least of all.
    command.args(args).env_clear().env("WEBMON_NO_SUCH_KEY", "x").current_dir("/");
    command.stdin(Stdio::null()).output().expect("webmon runs")
}

fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What bash offers for the last of `words`.
fn offered(script: &Path, words: &[&str]) -> Vec<String> {
    let program = words[0];
    let code = format!(
        "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; \
         fn=$(complete -p {program} | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
         $fn {program} '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1,
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let output = Command::new("bash").args(["--norc", "-c", &code]).output().expect("bash runs");
    let error = String::from_utf8_lossy(&output.stderr);
    // Outside of an interactive shell there is nothing to set options for.
    let error: Vec<&str> = error.lines().filter(|line| !line.contains("compopt")).collect();
    assert!(error.is_empty(), "{error:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let dir = tempfile::tempdir().unwrap();
    for program in ["webmon", "producer", "consumer"] {
        let script = text(&webmon(&["completions", "bash", "--program", program]));
        std::fs::write(dir.path().join(program), script).unwrap();
    }
    let check = |words: &[&str], expected: &[&str]| {
        assert_eq!(offered(&dir.path().join(words[0]), words), expected, "{words:?}");
    };
    check(&["webmon", "che"], &["check"]);
    check(&["webmon", "check", "--rep"], &["--repeat"]);
    check(&["webmon", "config", "sh"], &["show"]);
    check(&["webmon", "completions", "f"], &["fish"]);
    check(&["webmon", "run", "--bus", "lo"], &["local"]);
    check(&["producer", "--inter"], &["--interval"]);
    check(&["consumer", "--si"], &["--sink"]);
}

#[test]
fn every_shell_has_its_words() {
    for (shell, part) in [
        ("bash", "complete -F _webmon"),
        ("zsh", "#compdef webmon"),
        ("fish", "complete -c webmon"),
        ("elvish", "edit:completion:arg-completer[webmon]"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = text(&webmon(&["completions", shell]));
        assert!(script.contains(part) && script.contains("repeat"), "{shell}");
    }
    assert_eq!(webmon(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn manual_pages_are_whole_and_clean() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("man1");
    assert_eq!(text(&webmon(&["man", "--dir", dir.to_str().unwrap()])), "");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let page = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(page.contains(&format!(".TH {name} 1")), "{name}: {page}");
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH EXAMPLES"] {
            assert!(page.contains(section), "no {section} in {name}");
        }
        // Where a formatter is installed, it has nothing to say.
        let mut groff = Command::new("groff");
        groff.args(["-man", "-ww", "-z", "-Tutf8", "-Kutf8"]).arg(&path);
        if let Ok(output) = groff.output() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.is_empty(), "{name}: {said}");
        }
        names.push(name);
    }
    for wanted in ["webmon", "webmon-check", "webmon-rejected-list", "producer", "consumer"] {
        assert!(names.iter().any(|name| name == wanted), "no {wanted} in {names:?}");
    }
    let page = text(&webmon(&["man", "webmon-check"]));
    assert_eq!(
        page.trim_end(),
        std::fs::read_to_string(dir.join("webmon-check.1")).unwrap().trim_end()
    );
    assert!(page.contains("webmon check \\-\\-site Example \\-\\-save"), "{page}");
    assert!(text(&webmon(&["man"])).contains(".SH \"EXIT STATUS\""));
    let unknown = webmon(&["man", "nothing"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("webmon-check"));
}
