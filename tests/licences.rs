//! Every dependency has a licence that deny.toml allows. `cargo deny` says the same and more, where
//! it is installed; this needs nothing but Cargo.

#![allow(clippy::unwrap_used)] // helpers of tests, too

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The `allow` list in the section `[licenses]` of deny.toml.
fn allowed() -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .skip_while(|line| *line != "[licenses]")
        .skip_while(|line| *line != "allow = [")
        .skip(1)
        .take_while(|line| *line != "]")
        .filter_map(|line| Some(line.split('"').nth(1)?.to_owned()))
        .collect()
}

/// Name, version and licence of the packages that are built on this platform.
fn packages() -> Vec<(String, String)> {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            let name = format!("{} {}", text(&p["name"]), text(&p["version"]));
            (name, text(&p["license"]))
        })
        .collect()
}

/// Whether an SPDX expression can be met with the allowed licences. `/` is the old way to write `OR`.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ")
        .replace(" WITH ", "+WITH+");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    either(&mut rest, allowed).unwrap_or(false) && rest.is_empty()
}

fn either(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = both(rest, allowed)?;
    while let Some(after) = rest.strip_prefix(&["OR"]) {
        *rest = after;
        met |= both(rest, allowed)?;
    }
    Some(met)
}

fn both(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = one(rest, allowed)?;
    while let Some(after) = rest.strip_prefix(&["AND"]) {
        *rest = after;
        met &= one(rest, allowed)?;
    }
    Some(met)
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    if *first != "(" {
        return Some(allowed.contains(&first.replace("+WITH+", " WITH ")));
    }
    let met = either(rest, allowed)?;
    *rest = rest.strip_prefix(&[")"])?;
    Some(met)
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let allowed = allowed();
    assert!(allowed.contains("MIT"), "deny.toml was not read: {allowed:?}");
    let packages = packages();
    assert!(packages.len() > 50, "only {} packages seen", packages.len());
    let refused: Vec<_> =
        packages.iter().filter(|(_, licence)| !permits(licence, &allowed)).collect();
    assert!(refused.is_empty(), "not allowed by deny.toml, or without a licence: {refused:#?}");
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "ISC", "Apache-2.0"].map(str::to_owned).into();
    let check =
        |expression, expected| assert_eq!(permits(expression, &allowed), expected, "{expression}");
    check("MIT", true);
    check("GPL-3.0-only", false);
    check("", false);
    check("GPL-3.0-only OR MIT", true);
    check("GPL-3.0-only AND MIT", false);
    check("GPL-3.0-only/MIT", true);
    check("MIT AND GPL-3.0-only OR ISC", true);
    check("MIT AND (GPL-3.0-only OR ISC)", true);
    check("(MIT OR ISC) AND GPL-3.0-only", false);
    check("Apache-2.0 WITH LLVM-exception", false);
    check("Apache-2.0 WITH LLVM-exception OR MIT", true);
    check("(MIT", false);
    check("MIT ISC", false);
}
