//! The bounded call, in a process of its own: the count of calls left behind is the process's.

use std::time::Duration;

use webmon::runtime::{BoundedCall, CallError, LEFT_BEHIND_MAX, Stop, left_behind};

#[test]
fn late_calls_are_left_behind_and_counted_until_they_end() {
    let wait = Duration::from_secs(10);
    let mut counter = BoundedCall::start("t-count", || 0u32).unwrap();
    assert_eq!(
        counter.call(wait, |n| {
            *n += 1;
            *n
        }),
        Ok(1)
    );
    assert_eq!(
        counter.call(wait, |n| {
            *n += 1;
            *n
        }),
        Ok(2)
    );

    let mut bad = BoundedCall::start("t-panic", || ()).unwrap();
    assert_eq!(bad.call(wait, |()| panic!("on purpose")), Err::<(), _>(CallError::Panicked));
    assert_eq!(bad.call(wait, |()| ()), Err(CallError::Gone));

    let hang = Stop::new();
    for _ in 0..LEFT_BEHIND_MAX {
        let mut slow = BoundedCall::start("t-slow", || ()).unwrap();
        let hang = hang.clone();
        let late = slow.call(Duration::from_millis(1), move |()| hang.wait_forever());
        assert_eq!(late, Err(CallError::Late));
        assert!(!slow.is_usable());
    }
    assert_eq!(left_behind(), LEFT_BEHIND_MAX);
    assert_eq!(BoundedCall::start("t-no", || ()).err(), Some(CallError::Saturated));

    hang.request();
    let clock = webmon::runtime::now().mono + wait;
    while left_behind() > 0 && webmon::runtime::now().mono < clock {
        let _ = Stop::new().wait(Duration::from_millis(1));
    }
    assert_eq!(left_behind(), 0);
}
