//! Identifiers. Invariant: an identifier's text form is what AWS shows, and parsing it gives the identifier back.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Where new identifiers come from. The shells draw them at random; the simulator counts them from its seed.
pub trait IdSource {
    fn next_u128(&mut self) -> u128;

    fn task(&mut self) -> TaskId {
        TaskId(self.next_u128())
    }

    fn container_instance(&mut self) -> ContainerInstanceId {
        ContainerInstanceId(self.next_u128())
    }

    /// An EC2-style id: the prefix, a dash and 17 hexadecimal digits, such as `vpc-0a1b2c3d4e5f60718`.
    fn ec2(&mut self, prefix: &str) -> String {
        let digits = (self.next_u128() >> 64) & ((1 << 64) - 1);
        format!("{prefix}-0{digits:016x}")
    }

    /// A UUID in its usual form, as ECS gives attachments.
    fn uuid(&mut self) -> String {
        let v = (self.next_u128() & !(0xf000 << 64) & !(0b11 << 62)) | (0x4000 << 64) | (0b10 << 62);
        let hex = format!("{v:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// FNV-1a: a number that stands for a text, the same on every machine and in every version.
pub fn stable_hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if !hex {
                    return Err(NotAnId);
                }
                u128::from_str_radix(text, 16).map(Self).map_err(|_| NotAnId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// A task: 32 hexadecimal digits.
    TaskId
);
hex_id!(
    /// A container instance: 32 hexadecimal digits.
    ContainerInstanceId
);

/// The text is not 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of 32 hexadecimal digits")]
pub struct NotAnId;

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u128);
    impl IdSource for Fixed {
        fn next_u128(&mut self) -> u128 {
            self.0
        }
    }

    #[test]
    fn ids_read_back_what_they_show() {
        let id = TaskId(0x0a1b);
        assert_eq!(id.to_string(), "00000000000000000000000000000a1b");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("xyz".parse::<TaskId>(), Err(NotAnId));
        assert_eq!("+0000000000000000000000000000a1b".parse::<TaskId>(), Err(NotAnId));
    }

    #[test]
    fn ec2_and_uuid_forms() {
        assert_eq!(Fixed(u128::MAX).ec2("vpc"), "vpc-0ffffffffffffffff");
        assert_eq!(Fixed(u128::MAX).uuid(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
