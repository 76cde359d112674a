#!/usr/bin/env bash
# Everything a change must pass: format, lints, docs, licences, all tests. Starts PostgreSQL and Kafka
# itself (scripts/services) and leaves them running for the next time.
#
#   ./test.sh                 # everything
#   ./test.sh store           # everything, but of the tests those whose name contains `store`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

if [ "${CI:-}" = true ]; then export CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never NO_COLOR=1; fi
command -v cargo >/dev/null || die "no cargo here: install Rust 1.95 or newer (https://rustup.rs)"

say "PostgreSQL and Kafka"
SECONDS_BEFORE=$SECONDS scripts/services up
set -a
# shellcheck source=/dev/null
. .services/env
set +a
# The tests take the addresses alone: settings of the daemons would reach those that they start.
unset "${!WEBMON_DATABASE_@}" "${!WEBMON_KAFKA_@}"

say "a browser and schemathesis, for the API's tests"
if ! command -v chromedriver >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y -qq chromium chromium-driver >/dev/null ||
      die "chromium can't be installed: apt-get update, then apt-get install chromium chromium-driver"
  else warn "no chromedriver here: the test of /docs fails until chromium and chromium-driver are installed"; fi
fi
scripts/schemathesis install

say "dependencies (cargo fetch)"
cargo fetch --locked
say "format (cargo fmt)"
cargo fmt --check
if command -v shellcheck >/dev/null; then
  say "shell scripts (shellcheck)"
  shellcheck -x scripts/services scripts/run scripts/bench scripts/faults scripts/schemathesis scripts/lib.sh test.sh build.sh .ci/run
else say "shell scripts: skipped, no shellcheck here"; fi
say "lints (cargo clippy)"
cargo clippy --all-targets --locked -- -D warnings
say "documentation (cargo doc)"
RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked
if cargo deny --version >/dev/null 2>&1; then
  say "advisories, licences, sources (cargo deny)"
  cargo deny --locked check
else say "advisories: skipped, no cargo-deny here (the licences are a test below)"; fi
# Documentation's examples first: the run ends with the summary of a real test program.
say "examples in the documentation"
cargo test --doc --locked -- "$@"
say "tests"
cargo test --tests --locked --no-fail-fast -- "$@"
