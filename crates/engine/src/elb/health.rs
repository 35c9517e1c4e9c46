//! How checks become a target's health. Invariant: the state changes only when as many checks in a row as the group says
//! agree, but the first one that passes is enough for a target that is new.
//!
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html>.

use longshore_model::elb::{HealthCheck, HealthState, Matcher, TargetHealth};

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Passed,
    /// The target answered, and not as it should.
    Code(u16),
    TimedOut,
    /// No connection, or no answer that makes sense.
    Failed,
}

/// A target's health as its checks go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    health: TargetHealth,
    passed: u32,
    failed: u32,
}

impl Course {
    /// Goes on from what is recorded.
    pub fn from(health: TargetHealth) -> Self {
        Self { health, passed: 0, failed: 0 }
    }

    pub fn health(&self) -> &TargetHealth {
        &self.health
    }

    /// Takes in a check.
    pub fn take(&mut self, check: &HealthCheck, finding: &Finding) {
        if *finding == Finding::Passed {
            self.failed = 0;
            self.passed = self.passed.saturating_add(1);
            let enough = self.health.state == HealthState::Initial || self.passed >= check.healthy_threshold;
            if enough {
                self.health = TargetHealth::healthy();
            }
            return;
        }
        self.passed = 0;
        self.failed = self.failed.saturating_add(1);
        if self.failed >= check.unhealthy_threshold || self.health.state == HealthState::Unhealthy {
            self.health = unhealthy(finding);
        }
    }
}

fn unhealthy(finding: &Finding) -> TargetHealth {
    let (reason, description) = match finding {
        Finding::Code(code) => {
            ("Target.ResponseCodeMismatch", format!("Health checks failed with these codes: [{code}]"))
        }
        Finding::TimedOut => ("Target.Timeout", "Request timed out".to_owned()),
        Finding::Failed | Finding::Passed => ("Target.FailedHealthChecks", "Health checks failed".to_owned()),
    };
    TargetHealth {
        state: HealthState::Unhealthy,
        reason: Some(reason.to_owned()),
        description: Some(description),
    }
}

/// Whether a status counts as success: `200`, `200,202` and `200-299` may be mixed.
pub fn is_success(matcher: Option<&Matcher>, status: u16) -> bool {
    let codes = match matcher {
        Some(Matcher::Http(codes) | Matcher::Grpc(codes)) => codes.as_str(),
        None => "200",
    };
    codes.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&status),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_model::elb::HealthCheckProtocol;

    fn check() -> HealthCheck {
        HealthCheck {
            enabled: true,
            protocol: HealthCheckProtocol::Http,
            port: None,
            path: Some("/".to_owned()),
            interval: 30,
            timeout: 5,
            healthy_threshold: 3,
            unhealthy_threshold: 2,
            matcher: None,
        }
    }

    #[track_caller]
    fn after(findings: &[Finding], expected: HealthState) -> Course {
        let mut course = Course::from(TargetHealth::initial());
        findings.iter().for_each(|finding| course.take(&check(), finding));
        assert_eq!(course.health().state, expected, "{findings:?}");
        course
    }

    #[test]
    fn a_new_target_needs_one_check_and_one_that_failed_needs_all() {
        use Finding::{Failed, Passed, TimedOut};
        after(&[], HealthState::Initial);
        after(&[Passed], HealthState::Healthy);
        after(&[Failed, Passed], HealthState::Healthy);
        after(&[Failed], HealthState::Initial);
        after(&[Failed, TimedOut], HealthState::Unhealthy);
        after(&[Failed, Failed, Passed, Passed], HealthState::Unhealthy);
        after(&[Failed, Failed, Passed, Passed, Passed], HealthState::Healthy);
        after(&[Passed, Failed, Passed, Failed], HealthState::Healthy);
    }

    #[test]
    fn the_reason_is_that_of_the_last_check() {
        let course = after(&[Finding::Failed, Finding::Failed, Finding::Code(404)], HealthState::Unhealthy);
        assert_eq!(course.health().reason.as_deref(), Some("Target.ResponseCodeMismatch"));
        assert_eq!(
            course.health().description.as_deref(),
            Some("Health checks failed with these codes: [404]")
        );
    }

    #[test]
    fn codes_are_listed_and_ranged() {
        let matcher = Matcher::Http("200, 300-302".to_owned());
        for (status, expected) in [(200, true), (201, false), (301, true), (303, false)] {
            assert_eq!(is_success(Some(&matcher), status), expected, "{status}");
        }
        assert!(is_success(None, 200) && !is_success(None, 204));
    }
}
