//! Amazon Resource Names. Invariant: what `Arn::parse` accepts, `Display` writes back unchanged.

use crate::scope::Scope;
use std::fmt;

/// `arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE`, borrowed from its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arn<'a> {
    pub service: &'a str,
    pub region: &'a str,
    pub account: &'a str,
    /// Everything after the fifth colon, such as `task/default/0123…`.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        if parts.next()? != "arn" || !parts.next()?.starts_with("aws") {
            return None;
        }
        Some(Self {
            service: parts.next()?,
            region: parts.next()?,
            account: parts.next()?,
            resource: parts.next().filter(|resource| !resource.is_empty())?,
        })
    }

    pub fn in_scope(&self, scope: &Scope) -> bool {
        self.region == scope.region.as_ref() && self.account == scope.account.as_ref()
    }
}

impl fmt::Display for Arn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:{}:{}:{}:{}", self.service, self.region, self.account, self.resource)
    }
}

/// The ARN of an ECS resource of `scope`, such as `ecs(scope, "cluster/default")`.
pub fn ecs(scope: &Scope, resource: fmt::Arguments<'_>) -> String {
    format!("arn:aws:ecs:{}:{}:{resource}", scope.region, scope.account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_is_written_as_it_was_read() {
        let text = "arn:aws:ecs:us-east-1:123456789012:task/default/0af";
        let arn = Arn::parse(text);
        assert_eq!(arn.map(|a| a.to_string()).as_deref(), Some(text));
        assert_eq!(arn.map(|a| a.resource), Some("task/default/0af"));
    }

    #[test]
    fn what_is_no_arn_is_refused() {
        for text in ["default", "arn:aws:ecs", "arn:gcp:ecs:a:b:c", "arn:aws:ecs:r:a:"] {
            assert_eq!(Arn::parse(text), None, "{text}");
        }
    }
}
