//! The security policies of TLS: which versions are spoken, and with which ciphers.
//!
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/describe-ssl-policies.html>.

/// What a listener has that is given none.
pub const DEFAULT: &str = "ELBSecurityPolicy-2016-08";

#[derive(Debug)]
pub struct SslPolicy {
    pub name: &'static str,
    /// The newest first.
    pub protocols: &'static [&'static str],
    families: &'static [Family],
}

/// Ciphers that policies have together or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Tls13,
    /// Ephemeral keys and authenticated encryption.
    EphemeralGcm,
    EphemeralSha2,
    EphemeralSha1,
    /// The certificate's own key.
    PlainGcm,
    PlainSha2,
    PlainSha1,
}

use Family::{EphemeralGcm, EphemeralSha1, EphemeralSha2, PlainGcm, PlainSha1, PlainSha2, Tls13};

/// In the order in which they are preferred.
const CIPHERS: [(&str, Family); 21] = [
    ("TLS_AES_128_GCM_SHA256", Tls13),
    ("TLS_AES_256_GCM_SHA384", Tls13),
    ("TLS_CHACHA20_POLY1305_SHA256", Tls13),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", EphemeralGcm),
    ("ECDHE-RSA-AES128-GCM-SHA256", EphemeralGcm),
    ("ECDHE-ECDSA-AES128-SHA256", EphemeralSha2),
    ("ECDHE-RSA-AES128-SHA256", EphemeralSha2),
    ("ECDHE-ECDSA-AES128-SHA", EphemeralSha1),
    ("ECDHE-RSA-AES128-SHA", EphemeralSha1),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", EphemeralGcm),
    ("ECDHE-RSA-AES256-GCM-SHA384", EphemeralGcm),
    ("ECDHE-ECDSA-AES256-SHA384", EphemeralSha2),
    ("ECDHE-RSA-AES256-SHA384", EphemeralSha2),
    ("ECDHE-ECDSA-AES256-SHA", EphemeralSha1),
    ("ECDHE-RSA-AES256-SHA", EphemeralSha1),
    ("AES128-GCM-SHA256", PlainGcm),
    ("AES128-SHA256", PlainSha2),
    ("AES128-SHA", PlainSha1),
    ("AES256-GCM-SHA384", PlainGcm),
    ("AES256-SHA256", PlainSha2),
    ("AES256-SHA", PlainSha1),
];

const V1_3: &[&str] = &["TLSv1.3"];
const V1_2_TO_3: &[&str] = &["TLSv1.3", "TLSv1.2"];
const V1_1_TO_3: &[&str] = &["TLSv1.3", "TLSv1.2", "TLSv1.1"];
const V1_0_TO_3: &[&str] = &["TLSv1.3", "TLSv1.2", "TLSv1.1", "TLSv1"];
const V1_2: &[&str] = &["TLSv1.2"];
const V1_1_TO_2: &[&str] = &["TLSv1.2", "TLSv1.1"];
const V1_0_TO_2: &[&str] = &["TLSv1.2", "TLSv1.1", "TLSv1"];

const BEFORE_TLS13: &[Family] = &[EphemeralGcm, EphemeralSha2, EphemeralSha1, PlainGcm, PlainSha2, PlainSha1];
const EVERY: &[Family] = &[Tls13, EphemeralGcm, EphemeralSha2, EphemeralSha1, PlainGcm, PlainSha2, PlainSha1];
const EPHEMERAL: &[Family] = &[EphemeralGcm, EphemeralSha2, EphemeralSha1];

pub static POLICIES: [SslPolicy; 16] = [
    policy("ELBSecurityPolicy-TLS13-1-3-2021-06", V1_3, &[Tls13]),
    policy("ELBSecurityPolicy-TLS13-1-2-2021-06", V1_2_TO_3, &[Tls13, EphemeralGcm, EphemeralSha2]),
    policy("ELBSecurityPolicy-TLS13-1-2-Res-2021-06", V1_2_TO_3, &[Tls13, EphemeralGcm]),
    policy(
        "ELBSecurityPolicy-TLS13-1-2-Ext1-2021-06",
        V1_2_TO_3,
        &[Tls13, EphemeralGcm, EphemeralSha2, PlainGcm, PlainSha2],
    ),
    policy("ELBSecurityPolicy-TLS13-1-2-Ext2-2021-06", V1_2_TO_3, EVERY),
    policy("ELBSecurityPolicy-TLS13-1-1-2021-06", V1_1_TO_3, EVERY),
    policy("ELBSecurityPolicy-TLS13-1-0-2021-06", V1_0_TO_3, EVERY),
    policy("ELBSecurityPolicy-TLS-1-2-2017-01", V1_2, &[EphemeralGcm, EphemeralSha2, PlainGcm, PlainSha2]),
    policy("ELBSecurityPolicy-TLS-1-2-Ext-2018-06", V1_2, BEFORE_TLS13),
    policy("ELBSecurityPolicy-TLS-1-1-2017-01", V1_1_TO_2, BEFORE_TLS13),
    policy("ELBSecurityPolicy-FS-1-2-Res-2020-10", V1_2, &[EphemeralGcm]),
    policy("ELBSecurityPolicy-FS-1-2-Res-2019-08", V1_2, &[EphemeralGcm, EphemeralSha2]),
    policy("ELBSecurityPolicy-FS-1-2-2019-08", V1_2, EPHEMERAL),
    policy("ELBSecurityPolicy-FS-1-1-2019-08", V1_1_TO_2, EPHEMERAL),
    policy("ELBSecurityPolicy-FS-2018-06", V1_0_TO_2, EPHEMERAL),
    policy(DEFAULT, V1_0_TO_2, BEFORE_TLS13),
];

const fn policy(
    name: &'static str,
    protocols: &'static [&'static str],
    families: &'static [Family],
) -> SslPolicy {
    SslPolicy { name, protocols, families }
}

impl SslPolicy {
    pub fn find(name: &str) -> Option<&'static Self> {
        POLICIES.iter().find(|policy| policy.name == name)
    }

    /// By their names in OpenSSL, those that are preferred first.
    pub fn ciphers(&self) -> impl Iterator<Item = &'static str> {
        let has = |(_, family): &&(&str, Family)| self.families.contains(family);
        CIPHERS.iter().filter(has).map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_the_ciphers_that_aws_gives_them() {
        let count = |name: &str| SslPolicy::find(name).map(|policy| policy.ciphers().count());
        assert_eq!(count(DEFAULT), Some(18));
        assert_eq!(count("ELBSecurityPolicy-TLS13-1-2-2021-06"), Some(11));
        assert_eq!(count("ELBSecurityPolicy-TLS13-1-2-Res-2021-06"), Some(7));
        assert_eq!(count("ELBSecurityPolicy-TLS13-1-2-Ext1-2021-06"), Some(15));
        assert_eq!(count("ELBSecurityPolicy-FS-1-2-Res-2020-10"), Some(4));
        assert_eq!(count("nothing"), None);
    }
}
