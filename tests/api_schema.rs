//! The OpenAPI document: as it was looked at last, and kept by what is answered.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

#[path = "support/mod.rs"]
mod support;

#[path = "api/support.rs"]
mod server;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use server::Server;

#[test]
fn the_document_is_as_it_was_looked_at() {
    let server = Server::start("api_golden");
    let document = server.get("/openapi.json").json(200);
    let text = format!("{document:#}\n");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/openapi.json");
    if std::env::var_os("WEBMON_UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(golden == text, "the document has changed; WEBMON_UPDATE_GOLDEN=1 rewrites {file:?}");
}

#[test]
fn schemathesis_finds_nothing() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/schemathesis");
    let refused = ("WEBMON_MONITORING_DENIED_ADDRESSES", "0.0.0.0/0,::/0");
    let server = Server::start_with("api_schema", &[refused, ("WEBMON_API_CONNECTIONS", "64")]);
    server.add(&json!({"name": "there", "url": "https://a.example/"}));
    let output = Command::new(script)
        .args(["run", &format!("http://{}", server.address)])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let cure = "./test.sh installs it, or: scripts/schemathesis install";
    assert_ne!(output.status.code(), Some(3), "no schemathesis here: {cure}");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("generated, ") && text.contains(" passed"), "{text}");
    let panics = server.log().into_iter().filter(|line| line.contains("panic")).count();
    assert_eq!(panics, 0);
}
