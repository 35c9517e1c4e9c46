//! Typed shapes to and from the neutral tree: the traits and macros that the generated crates build on.
//! Invariant: encoding then decoding a shape gives it back; a member that is absent in one is absent in the other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::{Map, Timestamp, Value};

pub trait Decode: Sized {
    fn decode(value: Value) -> Result<Self, Invalid>;

    /// What a member that was not given becomes; nothing where it must be given.
    fn absent() -> Option<Self> {
        None
    }
}

pub trait Encode {
    fn encode(self) -> Value;

    /// Whether a member with this value is left out.
    fn is_absent(&self) -> bool {
        false
    }
}

/// A value that does not fit its shape. The request was checked against the model before it is decoded, so
/// a client meets this only where the generated code and its tables disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    path: String,
    what: String,
}

impl Invalid {
    pub fn new(what: impl Into<String>) -> Self {
        Self { path: String::new(), what: what.into() }
    }

    /// The same error, seen from the structure or list that holds the value.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.path = if self.path.is_empty() { outer.to_owned() } else { format!("{outer}.{}", self.path) };
        self
    }

    fn kind(wanted: &str, found: &Value) -> Self {
        Self::new(format!("expected a {wanted}, found a {}", found.kind()))
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.what);
        }
        write!(f, "{}: {}", self.path, self.what)
    }
}

impl std::error::Error for Invalid {}

/// The members of a structure while it is decoded.
#[derive(Debug)]
pub struct Members(Map);

impl Members {
    pub fn of(value: Value) -> Result<Self, Invalid> {
        match value {
            Value::Map(map) => Ok(Self(map)),
            other => Err(Invalid::kind("structure", &other)),
        }
    }

    pub fn take<T: Decode>(&mut self, name: &'static str) -> Result<T, Invalid> {
        match self.0.take(name) {
            Some(value) => T::decode(value).map_err(|error| error.within(name)),
            None => T::absent().ok_or_else(|| Invalid::new("missing").within(name)),
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(value: Value) -> Result<Self, Invalid> {
        match value {
            Value::Null => Ok(None),
            value => T::decode(value).map(Some),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(self) -> Value {
        self.map_or(Value::Null, T::encode)
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(value: Value) -> Result<Self, Invalid> {
        T::decode(value).map(Box::new)
    }
}

impl<T: Encode> Encode for Box<T> {
    fn encode(self) -> Value {
        (*self).encode()
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(value: Value) -> Result<Self, Invalid> {
        let Value::List(values) = value else {
            return Err(Invalid::kind("list", &value));
        };
        let decode = |(at, value)| T::decode(value).map_err(|error| error.within(&format!("{}", at + 1)));
        values.into_iter().enumerate().map(decode).collect()
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(self) -> Value {
        Value::List(self.into_iter().map(T::encode).collect())
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(value: Value) -> Result<Self, Invalid> {
        let Value::Map(map) = value else {
            return Err(Invalid::kind("map", &value));
        };
        let decode = |(key, value): (Cow<'static, str>, Value)| match T::decode(value) {
            Ok(value) => Ok((key.into_owned(), value)),
            Err(error) => Err(error.within(&key)),
        };
        map.into_iter().map(decode).collect()
    }
}

impl<T: Encode> Encode for BTreeMap<String, T> {
    fn encode(self) -> Value {
        Value::Map(self.into_iter().map(|(key, value)| (key, value.encode())).collect())
    }
}

macro_rules! scalar {
    ($type:ty, $name:literal, $from:pat => $to:expr, $encode:expr) => {
        impl Decode for $type {
            fn decode(value: Value) -> Result<Self, Invalid> {
                match value {
                    $from => $to,
                    other => Err(Invalid::kind($name, &other)),
                }
            }
        }

        impl Encode for $type {
            fn encode(self) -> Value {
                let encode: fn($type) -> Value = $encode;
                encode(self)
            }
        }
    };
}

scalar!(String, "string", Value::String(text) => Ok(text.into_owned()), |text| Value::String(text.into()));
scalar!(bool, "boolean", Value::Bool(flag) => Ok(flag), Value::Bool);
scalar!(i64, "number", Value::Int(number) => Ok(number), Value::Int);
scalar!(
    i32,
    "number",
    Value::Int(number) => i32::try_from(number).map_err(|_| Invalid::new(format!("{number} is out of range"))),
    |number| Value::Int(number.into())
);
scalar!(Timestamp, "timestamp", Value::Timestamp(time) => Ok(time), Value::Timestamp);
scalar!(Vec<u8>, "blob", Value::Blob(bytes) => Ok(bytes), Value::Blob);

impl Decode for f64 {
    fn decode(value: Value) -> Result<Self, Invalid> {
        match value {
            Value::Float(number) => Ok(number),
            Value::Int(number) => Ok(number as Self),
            other => Err(Invalid::kind("number", &other)),
        }
    }
}

impl Encode for f64 {
    fn encode(self) -> Value {
        Value::Float(self)
    }
}

/// Any JSON, as it came.
impl Decode for Value {
    fn decode(value: Value) -> Result<Self, Invalid> {
        Ok(value)
    }
}

impl Encode for Value {
    fn encode(self) -> Value {
        self
    }
}

/// The input or output of an operation that has none.
impl Decode for () {
    fn decode(_: Value) -> Result<Self, Invalid> {
        Ok(())
    }
}

impl Encode for () {
    fn encode(self) -> Value {
        Value::Map(Map::new())
    }
}

/// Declares a structure with its members' names in the model.
#[macro_export]
macro_rules! structure {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty = $member:literal,)* }) => {
        $(#[$meta])*
        pub struct $name {
            $(pub $field: $type,)*
        }

        impl $crate::Decode for $name {
            fn decode(value: $crate::Value) -> ::std::result::Result<Self, $crate::Invalid> {
                #[allow(unused_mut, unused_variables)]
                let mut members = $crate::Members::of(value)?;
                Ok(Self { $($field: members.take($member)?,)* })
            }
        }

        impl $crate::Encode for $name {
            fn encode(self) -> $crate::Value {
                #[allow(unused_mut)]
                let mut map = $crate::Map::new();
                $(
                    if !$crate::Encode::is_absent(&self.$field) {
                        map.push($member, $crate::Encode::encode(self.$field));
                    }
                )*
                $crate::Value::Map(map)
            }
        }
    };
}

/// Writes `Debug` for a structure with members that must not be shown.
#[macro_export]
macro_rules! redacted {
    ($name:ident { $($shown:ident,)* } hides { $($hidden:ident,)* }) => {
        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($shown), &self.$shown))*
                    $(.field(stringify!($hidden), &format_args!("***")))*
                    .finish()
            }
        }
    };
}

/// Declares an enumeration with its values in the model.
#[macro_export]
macro_rules! enumeration {
    ($name:ident { $($variant:ident = $value:literal,)* }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($variant,)*
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            pub const VALUES: &'static [&'static str] = &[$($value,)*];

            pub const fn as_str(self) -> &'static str {
                Self::VALUES[self as usize]
            }
        }

        impl ::std::convert::TryFrom<&str> for $name {
            type Error = $crate::Invalid;

            fn try_from(text: &str) -> ::std::result::Result<Self, $crate::Invalid> {
                let at = Self::VALUES.iter().position(|value| *value == text);
                at.map(|at| Self::ALL[at]).ok_or_else(|| $crate::Invalid::new(format!("unknown value `{text}`")))
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::Invalid;

            fn from_str(text: &str) -> ::std::result::Result<Self, $crate::Invalid> {
                Self::try_from(text)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::Decode for $name {
            fn decode(value: $crate::Value) -> ::std::result::Result<Self, $crate::Invalid> {
                match value.as_str() {
                    Some(text) => Self::try_from(text),
                    None => Err($crate::Invalid::new(format!("expected a string, found a {}", value.kind()))),
                }
            }
        }

        impl $crate::Encode for $name {
            fn encode(self) -> $crate::Value {
                $crate::Value::from(self.as_str())
            }
        }
    };
}
