//! Health checks of containers. Invariant: only checks of the run that they were made in count; what cannot be
//! asked (the container ended, containerd is away) changes nothing.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HealthCheck.html>

use super::{Supervisor, clock};
use crate::runtime::{Error, ExecEnd, ExecSpec};
use longshore_model::task::Health;
use longshore_model::task_definition::HealthCheck;
use std::time::Duration;

/// Makes of single checks whether a container is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judge {
    pub health: Health,
    /// Failures since the last success, as far as they count.
    failures: u32,
    /// From the first success on, failures in the start period count as well.
    passed: bool,
}

impl Judge {
    /// Goes on from what was recorded.
    pub fn of(health: Health) -> Self {
        Self { health, failures: 0, passed: health == Health::Healthy }
    }

    pub fn take(&mut self, passed: bool, since_start: Duration, check: &HealthCheck) {
        let start_period = Duration::from_secs(check.start_period.unwrap_or(0).into());
        if passed {
            *self = Self { health: Health::Healthy, failures: 0, passed: true };
        } else if self.passed || since_start >= start_period {
            self.failures += 1;
            if self.failures >= check.retries {
                self.health = Health::Unhealthy;
            }
        }
    }
}

/// A check that came to its end.
pub struct Checked {
    index: usize,
    /// Tells the runs of a container apart.
    restarts: u32,
    result: Result<ExecEnd, Error>,
}

impl Supervisor {
    /// Starts the checks that are due.
    pub(super) fn begin_checks(&mut self) {
        let now = clock();
        for (index, held) in self.containers.iter_mut().enumerate() {
            let Some(check) =
                held.spec.health_check.as_ref().filter(|_| held.check_at().is_some_and(|at| at <= now))
            else {
                continue;
            };
            let Some(args) = command(&check.command) else { continue };
            let (instance, id) = (self.instance.clone(), held.spec.runtime_id.clone());
            let timeout = Duration::from_secs(check.timeout.into());
            let restarts = held.restarts;
            self.checks.spawn(async move {
                let spec = ExecSpec { args, ..ExecSpec::default() };
                let result = instance.runtime.exec(&id, spec, timeout).await;
                Checked { index, restarts, result }
            });
            held.checking = true;
        }
    }

    pub(super) fn checked(&mut self, checked: Checked) {
        let Some(held) = self.containers.get_mut(checked.index) else { return };
        held.checking = false;
        let Some(check) = held.spec.health_check.clone() else { return };
        let now = clock();
        held.plan_check(now);
        let since_start =
            held.last_start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        if checked.restarts != held.restarts || !held.is_running() {
            return;
        }
        match checked.result {
            Ok(end) => held.judge.take(end.exit_code == 0 && !end.timed_out, since_start, &check),
            Err(Error::NotFound(_) | Error::Unavailable { .. }) => {}
            Err(error @ Error::Failed { .. }) => {
                tracing::warn!(container = held.spec.runtime_id, %error, "a health check could not be made");
                held.judge.take(false, since_start, &check);
            }
        }
    }
}

/// `CMD` is followed by the words, `CMD-SHELL` by a line for the shell; `NONE` is no check.
pub fn command(written: &[String]) -> Option<Vec<String>> {
    let (kind, rest) = written.split_first()?;
    match kind.as_str() {
        "CMD-SHELL" => {
            Some(["/bin/sh".to_owned(), "-c".to_owned()].into_iter().chain(rest.iter().cloned()).collect())
        }
        "CMD" => Some(rest.to_vec()),
        "NONE" => None,
        // Without either word the whole is the command, as AWS takes it.
        _ => Some(written.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks as `+` and `-` at whole tens of seconds; answers the health after each.
    fn check(from: Health, retries: u32, start_period: u32, checks: &str, expected: &str) {
        let check = HealthCheck {
            command: Vec::new(),
            interval: 10,
            timeout: 5,
            retries,
            start_period: Some(start_period),
        };
        let mut judge = Judge::of(from);
        let letter = |health| match health {
            Health::Unknown => '?',
            Health::Healthy => 'h',
            Health::Unhealthy => 'u',
        };
        let said: String = (1..)
            .zip(checks.chars())
            .map(|(n, passed)| {
                judge.take(passed == '+', Duration::from_secs(10 * n), &check);
                letter(judge.health)
            })
            .collect();
        assert_eq!(said, expected, "{checks}");
    }

    #[test]
    fn health_follows_the_checks() {
        check(Health::Unknown, 3, 0, "--+--+---+", "??hhhhhhuh");
        check(Health::Unknown, 1, 0, "-+-", "uhu");
        check(Health::Unknown, 3, 0, "----", "??uu");
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        check(Health::Unknown, 2, 35, "-----", "????u");
        check(Health::Unknown, 2, 100, "-+--", "?hhu");
    }

    #[test]
    fn an_agent_goes_on_from_what_was_recorded() {
        check(Health::Healthy, 2, 100, "--", "hu");
        check(Health::Unhealthy, 2, 0, "-+", "uh");
    }

    #[test]
    fn commands_are_read_as_docker_reads_them() {
        let read = |words: &[&str]| {
            command(&words.iter().map(ToString::to_string).collect::<Vec<_>>()).map(|args| args.join("|"))
        };
        assert_eq!(read(&["CMD-SHELL", "a || b"]).as_deref(), Some("/bin/sh|-c|a || b"));
        assert_eq!(read(&["CMD", "a", "b"]).as_deref(), Some("a|b"));
        assert_eq!(read(&["a", "b"]).as_deref(), Some("a|b"));
        assert_eq!(read(&["NONE"]), None);
    }
}
