//! The text of the file as a tree.
//!
//! The tree keeps duplicate keys, which are faults of the configuration and not of YAML, so that
//! one of them doesn't hide all other faults.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// One value of the file. It has no `Debug`: it may be a secret.
pub(crate) enum Node {
    Null,
    Flag(bool),
    Whole(i128),
    Decimal(f64),
    Text(String),
    List(Vec<Node>),
    Section(Vec<(String, Node)>),
    Tagged,
}

/// Why a text is no YAML.
pub(crate) struct SyntaxFault {
    pub(crate) line: Option<usize>,
    pub(crate) problem: String,
}

impl SyntaxFault {
    fn new(error: &serde_yaml::Error) -> Self {
        let problem = match error.to_string() {
            // It would show the value, which may be a secret.
            text if text.contains("invalid ") => "a value that does not fit its tag".to_owned(),
            text if text.contains("more than one document") => {
                "a second document, begun by ---".to_owned()
            }
            text => text,
        };
        Self { line: error.location().map(|place| place.line()), problem }
    }
}

/// Reads `text`; an empty one is `Null`.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxFault> {
    TreeSeed
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| SyntaxFault::new(&error))
}

impl Node {
    /// The value as one would write it, if it is a single one.
    pub(crate) fn scalar(&self) -> Option<String> {
        match self {
            Self::Flag(flag) => Some(flag.to_string()),
            Self::Whole(number) => Some(number.to_string()),
            Self::Decimal(number) => Some(number.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::Null | Self::List(_) | Self::Section(_) | Self::Tagged => None,
        }
    }

    /// What kind of value it is.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Flag(_) => "true or false",
            Self::Whole(_) | Self::Decimal(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Section(_) => "a section with keys",
            Self::Tagged => "a value with a YAML tag",
        }
    }
}

struct TreeSeed;

impl<'de> DeserializeSeed<'de> for TreeSeed {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TreeSeed {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Whole(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Whole(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Node, E> {
        Ok(Node::Whole(number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Node, E> {
        Ok(Node::Whole(i128::try_from(number).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Decimal(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(TreeSeed)? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(key) = map.next_key_seed(TreeSeed)? {
            let key = key.scalar().ok_or_else(|| A::Error::custom("a key must be a word"))?;
            nodes.push((key, map.next_value_seed(TreeSeed)?));
        }
        Ok(Node::Section(nodes))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (_, value) = tagged.variant::<String>()?;
        value.newtype_variant::<IgnoredAny>()?;
        Ok(Node::Tagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_keeps_duplicates_and_says_where_yaml_ends() {
        let Ok(Node::Section(keys)) = parse("a: 1\nb: !tag x\na: ~\n") else {
            panic!("no section");
        };
        assert_eq!(keys.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
        assert_eq!(keys[1].1.what(), "a value with a YAML tag");
        assert!(matches!(parse(""), Ok(Node::Null)));
        for (text, expected) in [("a: 1\nb: [1\n", Some(3)), ("a:\n\t- b\n", Some(2))] {
            assert_eq!(parse(text).err().unwrap().line, expected, "{text:?}");
        }
        assert!(parse("a: 1\n---\nb: 2\n").is_err());
    }
}
