//! What other monitors reach, measured on 2026-11-21 on two cores of a shared machine, by the same
//! rules: nginx with a 20 KB page on loopback, the pattern near its end, 1,000 sites at 200
//! checks/s where nothing else is said. blackbox_exporter 0.23 with Prometheus 2.42, cloudprober
//! 321da49, gatus 08c4635, telegraf b272631.
//!
//! Another machine than the one this runs on: compare the ratios to wrk, which had 19.4 µs a
//! request there, and 187 µs with TLS.

pub(crate) const HTTP_200: &str = "cloudprober 405 (20.9 × wrk), telegraf 545, gatus 647 \
                                   (kept connections), blackbox_exporter 800";
pub(crate) const HTTP_2000: &str = "cloudprober and telegraf 165 (8.5 × wrk)";
pub(crate) const HTTPS_200: &str = "telegraf 975 (5.2 × wrk), cloudprober 1,007, \
                                    blackbox_exporter 1,581";
pub(crate) const HTTPS_2000: &str = "not measured";
pub(crate) const HIGHEST: &str = "telegraf 5,700/s, cloudprober 4,000 to 7,700/s, gatus 4,000/s, \
                                  blackbox_exporter 3,500/s";
pub(crate) const LATENESS: &str = "blackbox_exporter 1 / 5, cloudprober 2 / 12, telegraf 2 / 9, \
                                   gatus 11 / 39 (p99 / max of gap − interval)";
pub(crate) const RESIDENT_1000: &str = "blackbox_exporter 21, telegraf 70, cloudprober 79, \
                                        gatus 1,120";
pub(crate) const RESIDENT_100000: &str = "cloudprober 1,996, telegraf 2,988";
pub(crate) const PER_SITE: &str = "20 to 30 KB";
pub(crate) const FIRST_CHECK: &str = "cloudprober 0.5, gatus 2, telegraf 14";
pub(crate) const FULL_RATE: &str = "telegraf 14, cloudprober 100, gatus 6.2 hours";
