//! Sites with further settings.

use webmon::site::{SettingValue, Site, SiteSpec};

use super::support::{build, spec};

/// A site at `url` with these settings; `true` and `false` are flags, numbers are numbers.
pub(crate) fn site(url: &str, settings: &[(&str, &str)]) -> Site {
    build(&with(spec(url), settings))
}

/// `spec` with these settings.
pub(crate) fn with(mut spec: SiteSpec, settings: &[(&str, &str)]) -> SiteSpec {
    for (name, text) in settings {
        let value = match (*text, text.parse()) {
            ("true" | "false", _) => SettingValue::Flag(*text == "true"),
            (_, Ok(number)) => SettingValue::Whole(number),
            _ => SettingValue::Text((*text).to_owned()),
        };
        spec.settings.set(name, value).unwrap();
    }
    spec
}
