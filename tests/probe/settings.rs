//! Sites with further settings.

use webmon::site::{SettingValue, Site, SiteSpec};

use super::support::{build, spec};

/// A site at `url` with these settings; `true` and `false` are flags, numbers are numbers.
pub(crate) fn site(url: &str, settings: &[(&str, &str)]) -> Site {
    build(&with(spec(url), settings))
}

/// `spec` with these settings.
pub(crate) fn with(spec: SiteSpec, settings: &[(&str, &str)]) -> SiteSpec {
    let value = |text: &str| match (text, text.parse()) {
        ("true" | "false", _) => SettingValue::Flag(text == "true"),
        (_, Ok(number)) => SettingValue::Whole(number),
        _ => SettingValue::Text(text.to_owned()),
    };
    set(spec, settings.iter().map(|(name, text)| (*name, value(text))))
}

/// `spec` with these values.
pub(crate) fn set<'n>(
    mut spec: SiteSpec,
    values: impl IntoIterator<Item = (&'n str, SettingValue)>,
) -> SiteSpec {
    for (name, value) in values {
        spec.settings.set(name, value).unwrap();
    }
    spec
}
