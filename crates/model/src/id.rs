//! Identifiers. Invariant: an identifier's text form is what AWS shows, and parsing it gives the identifier back.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Hexadecimal digits of an identifier.
const DIGITS: usize = 32;

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

    /// A random UUID, as ECS gives attachments and containers.
    fn uuid(&mut self) -> Uuid {
        Uuid((self.next_u128() & !(0xf000 << 64) & !(0b11 << 62)) | (0x4000 << 64) | (0b10 << 62))
    }
}

/// FNV-1a: a number that stands for a text, the same on every machine and in every version.
pub fn stable_hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, dashes before $dashes:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                show(self.0, &$dashes, f)
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
                read(text, &$dashes).map(Self).ok_or(NotAnId)
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

id!(
    /// A task: 32 hexadecimal digits.
    TaskId,
    dashes before []
);
id!(
    /// A container instance: 32 hexadecimal digits.
    ContainerInstanceId,
    dashes before []
);
impl ContainerInstanceId {
    /// That of a task that waits for an instance.
    pub const NONE: Self = Self(0);
}

id!(
    /// A UUID in its usual form, such as `0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9`.
    Uuid,
    dashes before [8, 12, 16, 20]
);

/// The text is not 32 lower-case hexadecimal digits, or its dashes are not where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of 32 hexadecimal digits")]
pub struct NotAnId;

/// Writes 32 digits, with a dash before each of those places.
fn show(id: u128, dashes: &[usize], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for place in 0..DIGITS {
        if dashes.contains(&place) {
            f.write_char('-')?;
        }
        write!(f, "{:x}", (id >> (4 * (DIGITS - 1 - place))) & 0xf)?;
    }
    Ok(())
}

fn read(text: &str, dashes: &[usize]) -> Option<u128> {
    let mut text = text.bytes();
    let mut id = 0;
    for place in 0..DIGITS {
        if dashes.contains(&place) {
            text.next().filter(|byte| *byte == b'-')?;
        }
        let digit = match text.next()? {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        id = id << 4 | u128::from(digit);
    }
    text.next().is_none().then_some(id)
}

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
        assert_eq!("000000000000000000000000000000a1b".parse::<TaskId>(), Err(NotAnId));
        let id = Uuid(0x0a1b_2c3d_4e5f_4071_8293_a4b5_c6d7_e8f9);
        assert_eq!(id.to_string(), "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("0a1b2c3d4e5f40718293a4b5c6d7e8f9".parse::<Uuid>(), Err(NotAnId));
    }

    #[test]
    fn ec2_and_uuid_forms() {
        assert_eq!(Fixed(u128::MAX).ec2("vpc"), "vpc-0ffffffffffffffff");
        assert_eq!(Fixed(u128::MAX).uuid().to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
