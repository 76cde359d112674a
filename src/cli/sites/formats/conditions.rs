//! gatus's conditions: `[STATUS] == 200`, `[BODY] == pat(*text*)` and so on, each a placeholder, an
//! operator with a blank on either side, and a value.

use super::fields::{Fields, duration_ms};
use super::statuses::Statuses;

/// Milliseconds of a day.
const DAY_MS: f64 = 86_400e3;

/// What the conditions of one endpoint ask for together.
pub(super) struct Conditions {
    statuses: Option<Statuses>,
    regex: Option<String>,
    forbidden: Vec<String>,
    max_ms: Option<f64>,
    days: Option<f64>,
}

impl Conditions {
    /// Translates `conditions` into settings of the site; what has no counterpart is noted.
    pub(super) fn apply(conditions: &[String], follows_redirects: bool, fields: &mut Fields) {
        let mut all =
            Self { statuses: None, regex: None, forbidden: Vec::new(), max_ms: None, days: None };
        for (at, condition) in conditions.iter().enumerate() {
            let key = format!("conditions[{at}]");
            if let Err(problem) = all.add(condition, &key, fields) {
                fields.note(&key, problem);
            }
        }
        // gatus takes any status when no condition names it.
        let statuses = all.statuses.unwrap_or_else(Statuses::all);
        let statuses = if follows_redirects { statuses.without_followed() } else { statuses };
        if statuses.is_empty() {
            fields.fault("conditions", "no status fulfils all of them");
        } else if statuses.to_string() != "200-299" {
            fields.entry.spec.expected_status = Some(statuses.to_string());
        }
        fields.entry.spec.regex = all.regex;
        if !all.forbidden.is_empty() {
            let either = match all.forbidden.as_slice() {
                [one] => one.clone(),
                several => {
                    let each: Vec<String> = several.iter().map(|p| format!("(?:{p})")).collect();
                    each.join("|")
                }
            };
            fields.set("conditions", "forbidden_regex", &either);
        }
        if let Some(ms) = all.max_ms {
            fields.set("conditions", "max_response_time", &(ms / 1000.0).to_string());
        }
        if let Some(days) = all.days.filter(|days| *days > 0.0) {
            fields.set("conditions", "min_certificate_days", &days.to_string());
        }
    }

    fn add(&mut self, condition: &str, key: &str, fields: &mut Fields) -> Result<(), String> {
        let (left, operator, right) = parts(condition).ok_or("is no condition that is known")?;
        match left {
            "[STATUS]" => self.status(operator, right),
            "[BODY]" => self.body(operator, right),
            "[CONNECTED]" if operator == "==" && right == "true" => Ok(()),
            "[RESPONSE_TIME]" if matches!(operator, "<" | "<=") => {
                let ms = duration_ms(right).or_else(|| right.parse().ok());
                let ms = ms.ok_or("has no time in milliseconds")?.max(1.0).round();
                self.max_ms = Some(self.max_ms.map_or(ms, |known| known.min(ms)));
                Ok(())
            }
            "[CERTIFICATE_EXPIRATION]" if matches!(operator, ">" | ">=") => {
                let ms = duration_ms(right).or_else(|| right.parse().ok());
                let exact = ms.ok_or("has no duration, such as 48h")? / DAY_MS;
                let days = exact.ceil();
                if days > exact {
                    fields.note(key, format!("is {days} days now: webmon has whole days"));
                }
                self.days = Some(self.days.map_or(days, |known| known.max(days)));
                Ok(())
            }
            "[STATUS]." => Err("is no condition that is known".to_owned()),
            "[CONNECTED]" | "[RESPONSE_TIME]" | "[CERTIFICATE_EXPIRATION]" => {
                Err("webmon can't ask for that".to_owned())
            }
            other if other.contains("[BODY]") => {
                Err("webmon has no JSONPath; a regex may do".to_owned())
            }
            other if other.starts_with('[') => {
                let name = other.split(']').next().unwrap_or_default().trim_start_matches('[');
                Err(format!("webmon knows nothing of {name}"))
            }
            _ => Err("is no condition that is known".to_owned()),
        }
    }

    fn status(&mut self, operator: &str, right: &str) -> Result<(), String> {
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| "has no status code");
        let statuses = self.statuses.get_or_insert_with(Statuses::all);
        if let (Some(list), "==" | "!=") = (argument(right, "any"), operator) {
            let codes = list.split(',').map(number).collect::<Result<Vec<u16>, _>>()?;
            statuses.keep(|code| codes.contains(&code) == (operator == "=="));
            return Ok(());
        }
        if let (Some(pattern), "==" | "!=") = (argument(right, "pat"), operator) {
            let pattern = glob(pattern).ok_or(UNTRANSLATABLE)?;
            let pattern = regex::Regex::new(&pattern).map_err(|_| UNTRANSLATABLE)?;
            statuses.keep(|code| pattern.is_match(&code.to_string()) == (operator == "=="));
            return Ok(());
        }
        let wanted = number(right)?;
        statuses.keep(|code| match operator {
            "==" => code == wanted,
            "!=" => code != wanted,
            "<" => code < wanted,
            "<=" => code <= wanted,
            ">" => code > wanted,
            _ => code >= wanted,
        });
        Ok(())
    }

    fn body(&mut self, operator: &str, right: &str) -> Result<(), String> {
        let pattern = if let Some(pattern) = argument(right, "pat") {
            glob(pattern).ok_or(UNTRANSLATABLE)?
        } else if let Some(list) = argument(right, "any") {
            let each: Vec<String> = list.split(',').map(|one| regex::escape(one.trim())).collect();
            format!("\\A(?:{})\\z", each.join("|"))
        } else {
            format!("\\A{}\\z", regex::escape(right))
        };
        match operator {
            "!=" => self.forbidden.push(pattern),
            "==" if self.regex.is_some() => {
                return Err("webmon looks for one pattern; that of an earlier condition".to_owned());
            }
            "==" => self.regex = Some(pattern),
            _ => return Err("webmon can't compare the body with a number".to_owned()),
        }
        Ok(())
    }
}

const UNTRANSLATABLE: &str = "has a pattern with [, ] or \\; a regex may do";

/// Placeholder, operator and value, in this order.
fn parts(condition: &str) -> Option<(&str, &str, &str)> {
    // In the order in which gatus looks for them.
    for operator in ["==", "!=", "<=", ">=", ">", "<"] {
        let Some((left, right)) = condition.split_once(&format!(" {operator} ")) else { continue };
        let (left, right) = (left.trim(), right.trim());
        let is_place = |text: &str| text.contains("[") && !text.starts_with("pat(");
        if is_place(left) || !is_place(right) {
            return Some((left, operator, right));
        }
        let turned = match operator {
            "<=" => ">=",
            ">=" => "<=",
            "<" => ">",
            ">" => "<",
            same => same,
        };
        return Some((right, turned, left));
    }
    None
}

/// What stands within `function(…)`.
fn argument<'t>(text: &'t str, function: &str) -> Option<&'t str> {
    text.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')')
}

/// A regex for a pattern of `*` and `?`, which holds for the whole text; none for one with classes.
fn glob(pattern: &str) -> Option<String> {
    if pattern.contains(['[', ']', '\\']) {
        return None;
    }
    let core = pattern.trim_matches('*');
    let mut regex = String::with_capacity(pattern.len() + 8);
    if core.contains(['*', '?']) {
        // Any character: line ends too.
        regex.push_str("(?s)");
    }
    if !pattern.starts_with('*') {
        regex.push_str("\\A");
    }
    for c in core.chars() {
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            c => regex.push_str(&regex::escape(&c.to_string())),
        }
    }
    if !pattern.ends_with('*') {
        regex.push_str("\\z");
    }
    Some(regex)
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;

    fn translated(conditions: &[&str]) -> Entry {
        let mut fields = Fields::new(&serde_json::json!({}), 1);
        let conditions: Vec<String> = conditions.iter().map(|c| (*c).to_owned()).collect();
        Conditions::apply(&conditions, true, &mut fields);
        fields.entry
    }

    #[test]
    fn statuses_are_put_together() {
        for (conditions, expect) in [
            (&["[STATUS] == 200"][..], Some("200")),
            (&["[STATUS] == any(200, 429)"], Some("200,429")),
            (&["[STATUS] < 300", "[STATUS] >= 200"], None),
            (&["[STATUS] <= 299"], Some("100-299")),
            (&["200 == [STATUS]"], Some("200")),
            (&["300 > [STATUS]", "[STATUS] != 204"], Some("100-203,205-299")),
            (&["[STATUS] == pat(2*)"], None),
            (&["[STATUS] == pat(20?)"], Some("200-209")),
            (&["[STATUS] < 400"], Some("100-300,304-306,309-399")),
            (&["[CONNECTED] == true"], Some("100-300,304-306,309-999")),
        ] {
            let entry = translated(conditions);
            assert_eq!(entry.spec.expected_status.as_deref(), expect, "{conditions:?}");
            assert!(entry.notes.is_empty() && entry.faults.is_empty(), "{conditions:?}: {entry:?}");
        }
        assert_eq!(translated(&["[STATUS] == 200", "[STATUS] == 201"]).faults.len(), 1);
    }

    #[test]
    fn bodies_become_patterns() {
        let entry = translated(&[
            "[BODY] == pat(*<h1>Hi*there?</h1>*)",
            "[BODY] != pat(*error*)",
            "[BODY] != any(a, b.c)",
            "[RESPONSE_TIME] < 300",
            "[RESPONSE_TIME] <= 250",
            "[CERTIFICATE_EXPIRATION] > 48h",
        ]);
        assert!(entry.notes.is_empty() && entry.faults.is_empty(), "{entry:?}");
        assert_eq!(entry.spec.regex.as_deref(), Some("(?s)<h1>Hi.*there.</h1>"));
        let settings = crate::wire::settings::encode(&entry.spec.settings).unwrap();
        assert_eq!(settings["forbidden_regex"], "(?:error)|(?:\\A(?:a|b\\.c)\\z)");
        assert_eq!(settings["max_response_time"], 0.25);
        assert_eq!(settings["min_certificate_days"], 2);
        assert_eq!(translated(&["[BODY] == 1"]).spec.regex.as_deref(), Some("\\A1\\z"));
        assert_eq!(translated(&["[BODY] == pat(a*)"]).spec.regex.as_deref(), Some("\\Aa"));
    }

    #[test]
    fn what_webmon_has_not_is_noted() {
        for condition in [
            "[BODY].user.name == john",
            "len([BODY].data) < 5",
            "has([BODY].errors) == false",
            "[IP] == 127.0.0.1",
            "[DOMAIN_EXPIRATION] > 720h",
            "[CONNECTED] == false",
            "[RESPONSE_TIME] > 5",
            "[BODY] == pat([a-z]*)",
            "[BODY] > 5",
            "[STATUS] == x",
            "nonsense",
        ] {
            let entry = translated(&[condition]);
            assert_eq!(entry.notes.len(), 1, "{condition}: {entry:?}");
            assert_eq!(entry.notes[0].field, "conditions[0]");
        }
        let entry = translated(&["[CERTIFICATE_EXPIRATION] > 25h"]);
        assert!(entry.notes[0].message.contains("2 days"), "{entry:?}");
        let two = translated(&["[BODY] == pat(*a*)", "[BODY] == pat(*b*)"]);
        assert_eq!((two.spec.regex.as_deref(), two.notes.len()), (Some("a"), 1));
    }
}
