//! The account and region that every record belongs to (architecture invariant 8).

use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// Twelve digits.
    pub account: Arc<str>,
    /// Such as `us-east-1`.
    pub region: Arc<str>,
}

impl Scope {
    pub fn new(account: &str, region: &str) -> Self {
        Self { account: account.into(), region: region.into() }
    }

    /// The part of every key of this scope that follows the table's name.
    pub fn path(&self) -> String {
        format!("{}/{}", self.account, self.region)
    }

    /// The availability zones of the region, in order. AWS gives every region at least three; where a region
    /// differs from a, b, c, these are the letters that its accounts see.
    pub fn availability_zones(&self) -> Vec<String> {
        let letters = match self.region.as_ref() {
            "us-east-1" => "abcdef",
            "us-west-2" | "ap-northeast-2" => "abcd",
            "us-west-1" => "ac",
            "ap-northeast-1" => "acd",
            "ca-central-1" => "abd",
            _ => "abc",
        };
        letters.chars().map(|letter| format!("{}{letter}", self.region)).collect()
    }
}
