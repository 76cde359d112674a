//! Reading JSON objects field by field, remembering which field is being read: serde's own errors
//! name the types, not the field, and `derive` leaves no way to tell a repeated one.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

/// Where the reader is.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// Path of the field that is being read; empty before the first.
    pub(super) field: Cell<&'static str>,
    /// Whether that field was there already.
    pub(super) is_repeated: Cell<bool>,
}

impl Trail {
    /// Begins with `field`, which must not have been `seen`.
    pub(super) fn enter<E: Error>(&self, field: &'static str, seen: bool) -> Result<(), E> {
        self.field.set(field);
        self.is_repeated.set(seen);
        if seen { Err(E::custom("repeated")) } else { Ok(()) }
    }
}

/// An object whose fields are all optional to the reader; made by [`object!`].
pub(super) trait Object<'de>: Default {
    /// Reads the value of `key` from `map`; skips that of a key it doesn't know.
    fn set<A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        trail: &Trail,
    ) -> Result<(), A::Error>;
}

/// Makes a struct and its [`Object`]. Each field is absent (`None`), `null` (`Some(None)`) or a
/// value; `value` or `nested` says how it is read.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident<$life:lifetime> at $path:literal {
        $($field:ident: $read:ident $type:ty),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Default)]
        struct $name<$life> {
            $($field: Option<Option<$type>>,)+
            borrowed: std::marker::PhantomData<&$life ()>,
        }

        impl<'de: $life, $life> $crate::wire::object::Object<'de> for $name<$life> {
            fn set<A: serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
                trail: &$crate::wire::object::Trail,
            ) -> Result<(), A::Error> {
                match key {
                    $(stringify!($field) => {
                        trail.enter(concat!($path, stringify!($field)), self.$field.is_some())?;
                        self.$field = Some($crate::wire::object::$read(map, trail)?);
                    })+
                    _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                }
                Ok(())
            }
        }
    };
}
pub(super) use object;

/// Reads a value that is no object of ours, or `null`.
pub(super) fn value<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    map: &mut A,
    _: &Trail,
) -> Result<Option<T>, A::Error> {
    map.next_value()
}

/// Reads an object, or `null`.
pub(super) fn nested<'de, T: Object<'de>, A: MapAccess<'de>>(
    map: &mut A,
    trail: &Trail,
) -> Result<Option<T>, A::Error> {
    map.next_value_seed(Seed::new(trail))
}

/// Reads an object, or `null`, along a trail.
pub(super) struct Seed<'t, T> {
    trail: &'t Trail,
    object: PhantomData<T>,
}

impl<'t, T> Seed<'t, T> {
    pub(super) fn new(trail: &'t Trail) -> Self {
        Self { trail, object: PhantomData }
    }
}

impl<'de, T: Object<'de>> DeserializeSeed<'de> for Seed<'_, T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Object<'de>> Visitor<'de> for Seed<'_, T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<T>, A::Error> {
        let mut object = T::default();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            object.set(&key.0, &mut map, self.trail)?;
        }
        Ok(Some(object))
    }
}

/// A text that borrows from the message unless it has escapes. (`Option<Cow<str>>` always owns,
/// whatever its attributes.)
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}
