//! `cargo bench --bench rooms`: the pure rooms, and the search for a site's pattern, by criterion.
//!
//! The judge itself is the probe's own; what it spends its time on is the pattern, which is measured
//! here as the judge uses it, on a page of 20 KB.

// A bench is a program for a person at a terminal.
#![allow(clippy::unwrap_used)]
// criterion's macros make functions without documentation.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use webmon::check::{CAPTURES_MAX, Check, Identity, Outcome, Phases};
use webmon::schedule::{Advance, Reading, Schedule, lattice};
use webmon::site::{Interval, Pattern, StatusSet};

/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;

fn reading(ms: i64) -> Reading {
    Reading { wall_ms: START_MS + ms, mono_ms: ms.unsigned_abs() }
}

/// A million; `cargo test --benches` runs everything once, unoptimised, with fewer.
fn sites() -> i64 {
    if std::env::args().any(|arg| arg == "--bench") { 1_000_000 } else { 1000 }
}

fn wheel(criterion: &mut Criterion) {
    let minute = Interval::from_secs(60).unwrap();
    let sites = sites();
    let mut full = Schedule::new(reading(0));
    for id in 1..=sites {
        full.insert(id, &Identity::new(id, "default"), minute, reading(0));
    }
    let mut group = criterion.benchmark_group("wheel");
    let other = Identity::new(sites + 1, "default");
    group.bench_function("insert and remove one beside a million", |bencher| {
        bencher.iter(|| {
            full.insert(sites + 1, black_box(&other), minute, reading(0));
            full.remove(sites + 1)
        });
    });
    let intervals = [minute, Interval::from_secs(300).unwrap()];
    let mut id = 0;
    group.bench_function("change one of a million", |bencher| {
        bencher.iter(|| {
            id = id % sites + 1;
            let identity = Identity::new(id, "default");
            full.insert(id, black_box(&identity), intervals[id as usize % 2], reading(0))
        });
    });
    // A tenth of a second after the other, as a busy dispatcher looks.
    let (mut at_ms, mut due, mut out) = (0, 0, Advance::default());
    group.bench_function("one due check of a million", |bencher| {
        bencher.iter_custom(|wanted| {
            let begin = webmon::runtime::now().mono;
            let mut left = wanted as i64;
            while left > 0 {
                at_ms += 100;
                full.advance(reading(at_ms), &mut out);
                left -= (out.due.len() as i64).max(1);
                due += out.due.len();
            }
            // The last look may have found more than was asked for.
            let done = (wanted as i64 - left).unsigned_abs();
            (webmon::runtime::now().mono - begin).mul_f64(wanted as f64 / done as f64)
        });
    });
    group.bench_function("look when nothing is due", |bencher| {
        bencher.iter(|| full.advance(black_box(reading(at_ms)), &mut out));
    });
    group.finish();
    black_box(due);
}

fn place(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lattice");
    group.bench_function("next_due", |bencher| {
        bencher.iter(|| lattice::next_due(black_box(START_MS + 4321), black_box(777), 60_000));
    });
    group.bench_function("identity and offset", |bencher| {
        let interval = Interval::from_secs(60).unwrap();
        bencher.iter(|| Identity::new(black_box(4711), "default").offset_ms(interval));
    });
    group.bench_function("check_entry_id", |bencher| {
        let identity = Identity::new(4711, "default");
        let at = Timestamp::from_millisecond(START_MS).unwrap();
        bencher.iter(|| identity.check_entry_id(black_box(at)));
    });
    group.finish();
}

/// A check as most are.
fn typical() -> Check<'static> {
    let at = Timestamp::from_millisecond(START_MS).unwrap();
    let identity = Identity::new(4711, "default");
    let url = "https://www.site-4711.example.com/health".to_owned();
    Check {
        started_at: Some(at),
        outcome: Outcome::Up,
        response_time: Some(0.123_456),
        phases: Phases {
            resolve: Some(0.001_234),
            connect: Some(0.012_345),
            tls: Some(0.023_456),
            processing: Some(0.098_765),
            transfer: Some(0.004_321),
        },
        http_status: Some(200),
        http_version: Some("1.1".into()),
        redirects: Some(0),
        body_bytes: Some(20_480),
        body_truncated: Some(false),
        regex: Some(r"needle-\d+".into()),
        regex_match: Some(true),
        regex_captures: Some(vec!["needle-4711".into()]),
        remote_address: Some("93.184.216.34:443".into()),
        ..Check::empty(&identity, 4711, url, "default".to_owned(), at)
    }
}

fn wire(criterion: &mut Criterion) {
    let check = typical();
    let mut message = Vec::new();
    webmon::wire::encode(&check, &mut message);
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Bytes(message.len() as u64));
    let mut buffer = Vec::with_capacity(2 * message.len());
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            webmon::wire::encode(black_box(&check), &mut buffer);
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter_batched(
            || message.clone(),
            |message| webmon::wire::decode(black_box(&message)).is_ok(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn judge(criterion: &mut Criterion) {
    let mut page = "<p>lorem ipsum dolor sit amet </p>".repeat(600).into_bytes();
    page.extend_from_slice(b"<p>webmon looks for this: needle-4711</p>");
    let mut group = criterion.benchmark_group("judge");
    group.throughput(Throughput::Bytes(page.len() as u64));
    for (what, source) in [
        ("a literal and digits near the end", r"needle-\d+"),
        ("letters of either case", r"(?i)NEEDLE-\d+"),
        ("a pattern that is absent", r"haystack-\d+"),
    ] {
        let pattern = Pattern::new(source).unwrap();
        group.bench_function(what, |bencher| {
            bencher
                .iter(|| pattern.find_all(black_box(&page), CAPTURES_MAX, &mut || false).is_ok());
        });
    }
    group.finish();
    let statuses = StatusSet::parse("200-299,301").unwrap();
    criterion.bench_function("judge/expected status", |bencher| {
        bencher.iter(|| statuses.contains(black_box(301)));
    });
}

criterion_group!(rooms, wheel, place, wire, judge);
criterion_main!(rooms);
