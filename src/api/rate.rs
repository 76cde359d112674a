//! How often somebody may ask.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Most callers that are told apart; 64 bytes each. Past that the newcomers share one bucket.
const CALLERS_MAX: usize = 10_000;
/// How many seconds' requests may come at once, after a pause.
const BURST_S: f64 = 2.0;

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// A token, wherever it comes from.
    Token(usize),
    /// Everybody without one at an address, or in an IPv6 network of 64 bits, which is what one
    /// machine gets.
    Address(IpAddr),
    /// All for whom there is no bucket left.
    Others,
}

/// What stands for all addresses that one machine may have: the address itself, of IPv6 its
/// network of 64 bits.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into(),
        four => four,
    }
}

impl Who {
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(network(address))
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Requests that may come now.
    left: f64,
    /// Monotonic.
    at: Duration,
}

/// Token buckets of all callers.
#[derive(Debug)]
pub(super) struct Rates {
    /// Requests a second; 0: no limit.
    per_second: f64,
    buckets: HashMap<Who, Bucket>,
}

impl Rates {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), buckets: HashMap::new() }
    }

    /// Counts one request at `time`; how long to wait when it is one too many.
    pub(super) fn take(&mut self, who: Who, time: Duration) -> Result<(), Duration> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let (rate, most) = (self.per_second, self.per_second * BURST_S);
        let filled = |bucket: &Bucket| {
            let since = time.saturating_sub(bucket.at).as_secs_f64();
            (bucket.left + since * rate).min(most)
        };
        if self.buckets.len() >= CALLERS_MAX && !self.buckets.contains_key(&who) {
            // A full bucket says nothing about its owner.
            self.buckets.retain(|_, bucket| filled(bucket) < most);
        }
        let has_room = self.buckets.len() < CALLERS_MAX || self.buckets.contains_key(&who);
        let who = if has_room { who } else { Who::Others };
        let bucket = self.buckets.entry(who).or_insert(Bucket { left: most, at: time });
        *bucket = Bucket { left: filled(bucket), at: time };
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / rate));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(number: u32) -> Who {
        Who::at(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_burst_then_the_rate_for_each_by_itself() {
        let mut rates = Rates::new(10);
        let mut time = Duration::from_secs(5);
        let mut passed = |count: usize, who: &Who, time: Duration| {
            (0..count).filter(|_| rates.take(who.clone(), time).is_ok()).count()
        };
        assert_eq!(passed(30, &who(1), time), 20);
        assert_eq!(passed(30, &who(2), time), 20);
        time += Duration::from_millis(500);
        assert_eq!(passed(30, &who(1), time), 5);
        time += Duration::from_secs(3600);
        assert_eq!(passed(30, &who(1), time), 20);
        let wait = rates.take(who(1), time).unwrap_err();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        assert!(rates.take(who(1), time + wait + Duration::from_millis(1)).is_ok());
        let mut none = Rates::new(0);
        assert!((0..1000).all(|_| none.take(who(1), time).is_ok()));
    }

    #[test]
    fn one_machine_has_one_bucket() {
        let at = |text: &str| Who::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[test]
    fn many_callers_take_bounded_room_and_no_more_requests() {
        let mut rates = Rates::new(1);
        let time = Duration::from_secs(1);
        let passed = (0..2 * CALLERS_MAX as u32).filter(|n| rates.take(who(*n), time).is_ok());
        assert_eq!(passed.count(), CALLERS_MAX + 2);
        assert!(rates.buckets.len() <= CALLERS_MAX + 1);
        // Who is known stays told apart from them.
        assert!(
            rates.take(who(0), time).is_ok() && rates.take(who(CALLERS_MAX as u32), time).is_err()
        );
        assert!(rates.take(who(u32::MAX), time + Duration::from_secs(60)).is_ok());
        assert!(rates.buckets.len() <= 2, "{}", rates.buckets.len());
    }
}
