//! Sets of HTTP status codes.

/// A set of HTTP status codes, written as `200-299,301`.
///
/// The usual set takes no memory of its own: most sites have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusSet(Option<Box<[(u16, u16)]>>);

/// The usual set: every kind of success.
const SUCCESS: [(u16, u16); 1] = [(200, 299)];

impl StatusSet {
    /// Reads `200-299,301`.
    ///
    /// # Errors
    /// What is wrong with it, on one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let code = |part: &str| {
            part.trim()
                .parse::<u16>()
                .ok()
                .filter(|code| (100..=999).contains(code))
                .ok_or_else(|| format!("'{}' is no status code (100 to 999)", part.trim()))
        };
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = (code(first)?, code(last)?);
            if range.0 > range.1 {
                return Err(format!("'{}' ends before it begins", part.trim()));
            }
            ranges.push(range);
        }
        Ok(Self((ranges != SUCCESS).then(|| ranges.into_boxed_slice())))
    }

    fn ranges(&self) -> &[(u16, u16)] {
        self.0.as_deref().unwrap_or(&SUCCESS)
    }

    /// Whether `status` is in the set.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.ranges().iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl std::fmt::Display for StatusSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (first, last)) in self.ranges().iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_sets() {
        let set = StatusSet::parse("200-299, 301").unwrap();
        assert!(set.contains(200) && set.contains(301) && !set.contains(302));
        assert_eq!(set.to_string(), "200-299,301");
        assert_eq!(StatusSet::parse("200-299").unwrap(), StatusSet::default());
        assert_eq!(StatusSet::default().to_string(), "200-299");
        for bad in ["", "20", "300-200", "abc", "1000", "200-"] {
            assert!(StatusSet::parse(bad).is_err(), "{bad}");
        }
    }
}
