//! What the containers of a task are to one another: which may start, which can never start, which is to stop next,
//! which starts again. Invariant: plain functions of what is known; a container starts only when every condition
//! of its `dependsOn` holds, and is asked to stop only when nothing that depends on it runs.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDependency.html>

use longshore_model::link::ContainerSpec;
use longshore_model::task::Health;
use longshore_model::task_definition::{Condition, Dependency, RestartPolicy};
use std::time::Duration;

/// One container of the task, as far as the others are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    pub spec: &'a ContainerSpec,
    pub stage: Stage,
    pub health: Health,
    /// How long ago it was first started.
    pub since_start: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Waiting,
    /// Its first start is under way.
    Starting,
    /// Also while it is started again.
    Running,
    Ended {
        code: Option<i32>,
        /// Whether it ever ran.
        ran: bool,
    },
}

/// A container that can never start any more, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub container: String,
    pub on: String,
    pub why: Never,
}

/// Why a condition can never hold any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {
    Unsuccessful,
    Ended,
    TimedOut,
}

impl Blocked {
    /// In the words of the agent of ECS.
    pub fn message(&self) -> String {
        let pair = format!("container ordering dependency [{}] for target [{}]", self.on, self.container);
        match self.why {
            Never::Unsuccessful => {
                format!("failed to resolve {pair} as dependency did not exit successfully.")
            }
            Never::Ended => format!("failed to resolve {pair} as dependency has stopped."),
            Never::TimedOut => format!("{pair} has timed out."),
        }
    }
}

/// The containers that may start now, by their place in `all`.
pub fn startable(all: &[Member<'_>]) -> Vec<usize> {
    let ready = |member: &Member<'_>| {
        let mut verdicts = member.spec.depends_on.iter().map(|dependency| judge(all, dependency));
        member.stage == Stage::Waiting && verdicts.all(|verdict| verdict == Verdict::Holds)
    };
    (0..).zip(all).filter(|(_, member)| ready(member)).map(|(index, _)| index).collect()
}

/// The first container that waits for what will never be.
pub fn blocked(all: &[Member<'_>]) -> Option<Blocked> {
    waits(all).find_map(|(member, dependency)| match judge(all, dependency) {
        Verdict::Never(why) => {
            Some(Blocked { container: member.spec.name.clone(), on: dependency.container.clone(), why })
        }
        Verdict::Holds | Verdict::NotYet => None,
    })
}

/// When the next `startTimeout` runs out, from now.
pub fn next_timeout(all: &[Member<'_>]) -> Option<Duration> {
    let pending = waits(all).filter(|(_, dependency)| judge(all, dependency) == Verdict::NotYet);
    pending.filter_map(|(_, dependency)| left(dependency, find(all, &dependency.container)?)).min()
}

/// An essential container has ended, and with it the task.
pub fn essential_ended(all: &[Member<'_>]) -> bool {
    all.iter().any(|member| member.spec.essential && matches!(member.stage, Stage::Ended { .. }))
}

/// The containers whose turn it is to stop: those on which nothing depends that still runs.
pub fn stoppable(all: &[Member<'_>]) -> Vec<usize> {
    let lives = |member: &&Member<'_>| matches!(member.stage, Stage::Starting | Stage::Running);
    let needed = |name: &str| {
        all.iter().filter(lives).any(|other| other.spec.depends_on.iter().any(|d| d.container == name))
    };
    let next = |member: &Member<'_>| member.stage == Stage::Running && !needed(&member.spec.name);
    (0..).zip(all).filter(|(_, member)| next(member)).map(|(index, _)| index).collect()
}

/// Whether a container that ended is started again: not when it ended too soon after its last start.
pub fn starts_again(policy: Option<&RestartPolicy>, code: i32, ran: Duration) -> bool {
    policy.is_some_and(|policy| {
        let period = Duration::from_secs(policy.attempt_period.into());
        policy.enabled && !policy.ignored_exit_codes.contains(&code) && ran >= period
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    NotYet,
    Never(Never),
}

fn judge(all: &[Member<'_>], dependency: &Dependency) -> Verdict {
    // Registration refuses a definition that names a container it does not have.
    let Some(on) = find(all, &dependency.container) else { return Verdict::Never(Never::Ended) };
    let verdict = match (dependency.condition, on.stage) {
        (Condition::Start, Stage::Running | Stage::Ended { ran: true, .. })
        | (Condition::Complete, Stage::Ended { ran: true, .. })
        | (Condition::Success, Stage::Ended { code: Some(0), .. }) => Verdict::Holds,
        (Condition::Healthy, Stage::Running) if on.health == Health::Healthy => Verdict::Holds,
        (Condition::Success, Stage::Ended { ran: true, .. }) => Verdict::Never(Never::Unsuccessful),
        (_, Stage::Ended { .. }) => Verdict::Never(Never::Ended),
        (_, Stage::Waiting | Stage::Starting | Stage::Running) => Verdict::NotYet,
    };
    match (verdict, left(dependency, on)) {
        (Verdict::NotYet, Some(Duration::ZERO)) => Verdict::Never(Never::TimedOut),
        (verdict, _) => verdict,
    }
}

/// How long a container still has to become what others wait for.
fn left(dependency: &Dependency, on: &Member<'_>) -> Option<Duration> {
    match dependency.condition {
        // It is reached with the start itself, from which the time counts.
        Condition::Start => None,
        Condition::Complete | Condition::Success | Condition::Healthy => {
            let timeout = Duration::from_secs(on.spec.start_timeout?.into());
            Some(timeout.saturating_sub(on.since_start?))
        }
    }
}

fn waits<'a>(all: &'a [Member<'a>]) -> impl Iterator<Item = (&'a Member<'a>, &'a Dependency)> {
    let waiting = all.iter().filter(|member| member.stage == Stage::Waiting);
    waiting.flat_map(|member| member.spec.depends_on.iter().map(move |dependency| (member, dependency)))
}

fn find<'a>(all: &'a [Member<'a>], name: &str) -> Option<&'a Member<'a>> {
    all.iter().find(|member| member.spec.name == name)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use longshore_model::task_definition::{Isolation, Names};
    use std::collections::BTreeMap;

    pub fn spec(name: &str) -> ContainerSpec {
        ContainerSpec {
            name: name.to_owned(),
            runtime_id: name.to_owned(),
            image: "busybox".to_owned(),
            essential: false,
            was_running: false,
            entry_point: None,
            command: None,
            environment: Vec::new(),
            secrets: Vec::new(),
            unresolved: None,
            working_directory: None,
            user: None,
            readonly_root_filesystem: false,
            cpu: 0,
            memory: None,
            memory_reservation: None,
            start_timeout: None,
            stop_timeout: None,
            depends_on: Vec::new(),
            health_check: None,
            health: Health::Unknown,
            restart_policy: None,
            restarts: 0,
            mounts: Vec::new(),
            isolation: Isolation::default(),
            names: Names::default(),
            labels: BTreeMap::new(),
            log: None,
        }
    }

    /// Containers as `name stage [health] [@seconds] [<timeout] [!] [> dependency CONDITION, …]`, one a line;
    /// `!` is an essential one. Answers what may start, what is blocked, when to look again, and what may stop.
    fn check(containers: &str, expected: &str) {
        let read: Vec<(ContainerSpec, Stage, Health, Option<Duration>)> =
            containers.trim().lines().map(read).collect();
        let all: Vec<Member<'_>> = read
            .iter()
            .map(|(spec, stage, health, since_start)| Member {
                spec,
                stage: *stage,
                health: *health,
                since_start: *since_start,
            })
            .collect();
        let names = |places: Vec<usize>| {
            places
                .iter()
                .filter_map(|i| all.get(*i))
                .map(|m| m.spec.name.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut said =
            vec![format!("start {}", names(startable(&all))), format!("stop {}", names(stoppable(&all)))];
        said.extend(blocked(&all).map(|blocked| blocked.message()));
        said.extend(next_timeout(&all).map(|left| format!("look in {}", left.as_secs())));
        said.extend(essential_ended(&all).then(|| "end".to_owned()));
        let said: Vec<&str> =
            said.iter().map(|line| line.trim()).filter(|l| *l != "start" && *l != "stop").collect();
        assert_eq!(said.join(" · "), expected, "{containers}");
    }

    fn read(line: &str) -> (ContainerSpec, Stage, Health, Option<Duration>) {
        let (own, depends_on) = line.split_once('>').unwrap_or((line, ""));
        let mut words = own.split_whitespace();
        let mut spec = spec(words.next().unwrap());
        let stage = match words.next().unwrap() {
            "waiting" => Stage::Waiting,
            "starting" => Stage::Starting,
            "running" => Stage::Running,
            "lost" => Stage::Ended { code: None, ran: true },
            "never" => Stage::Ended { code: None, ran: false },
            code => Stage::Ended { code: Some(code.parse().unwrap()), ran: true },
        };
        let (mut health, mut since) = (Health::Unknown, None);
        for word in words {
            match word.split_at(1) {
                ("@", seconds) => since = Some(Duration::from_secs(seconds.parse().unwrap())),
                ("<", seconds) => spec.start_timeout = Some(seconds.parse().unwrap()),
                ("!", _) => spec.essential = true,
                ("h", _) => health = Health::Healthy,
                _ => health = Health::Unhealthy,
            }
        }
        spec.depends_on = depends_on
            .split(',')
            .filter_map(|dependency| {
                let (container, condition) = dependency.trim().split_once(' ')?;
                let all = [Condition::Start, Condition::Complete, Condition::Success, Condition::Healthy];
                let condition = all.into_iter().find(|c| c.as_str() == condition).unwrap();
                Some(Dependency { container: container.to_owned(), condition })
            })
            .collect();
        (spec, stage, health, since)
    }

    #[test]
    fn independent_containers_start_together() {
        check("a waiting\nb waiting\nc running", "start a b · stop c");
    }

    #[test]
    fn each_condition_holds_when_it_should() {
        check("a starting\nb waiting > a START", "");
        check("a running\nb waiting > a START", "start b · stop a");
        check("a 3\nb waiting > a START", "start b");
        check("a running\nb waiting > a COMPLETE", "stop a");
        check("a 3\nb waiting > a COMPLETE", "start b");
        check("a lost\nb waiting > a COMPLETE", "start b");
        check("a 0\nb waiting > a SUCCESS", "start b");
        check("a running\nb waiting > a HEALTHY", "stop a");
        check("a running healthy\nb waiting > a HEALTHY", "start b · stop a");
        // It may come yet.
        check("a running unhealthy\nb waiting > a HEALTHY", "stop a");
        check("a 0\nc running\nb waiting > a SUCCESS, c HEALTHY", "stop c");
    }

    #[test]
    fn what_will_never_hold_is_said() {
        let failed = "failed to resolve container ordering dependency [a] for target [b] as dependency";
        check("a 3\nb waiting > a SUCCESS", &format!("{failed} did not exit successfully."));
        check("a lost\nb waiting > a SUCCESS", &format!("{failed} did not exit successfully."));
        for condition in ["START", "COMPLETE", "SUCCESS", "HEALTHY"] {
            check(&format!("a never\nb waiting > a {condition}"), &format!("{failed} has stopped."));
        }
        check("a 0\nb waiting > a HEALTHY", &format!("{failed} has stopped."));
        // Of one that runs, the dependencies are no concern any more.
        check("a 3\nb running > a SUCCESS", "stop b");
    }

    #[test]
    fn a_dependency_has_its_start_timeout() {
        check("a running @4 <10\nb waiting > a HEALTHY", "stop a · look in 6");
        check(
            "a running @10 <10\nb waiting > a COMPLETE",
            "stop a · container ordering dependency [a] for target [b] has timed out.",
        );
        check("a running @10 <10 healthy\nb waiting > a HEALTHY", "start b · stop a");
        check("a starting <10\nb waiting > a START", "");
        check("a running @10 <10\nb running > a HEALTHY", "stop b");
    }

    #[test]
    fn dependants_stop_first() {
        check("a running\nb running > a START\nc running > b HEALTHY\nd running", "stop c d");
        check("a running\nb running > a START\nc 0 > b HEALTHY", "stop b");
        check("a running\nb starting > a START", "");
        check("a running\nb never > a START", "stop a");
    }

    #[test]
    fn an_essential_container_ends_the_task() {
        check("a 0\nb running", "stop b");
        check("a 0 !\nb running", "stop b · end");
        check("a lost !", "end");
    }

    #[test]
    fn a_container_starts_again_unless_it_ended_too_soon() {
        let policy = RestartPolicy { enabled: true, ignored_exit_codes: vec![0, 7], attempt_period: 60 };
        let off = RestartPolicy { enabled: false, ..policy.clone() };
        let minute = Duration::from_secs(60);
        assert!(starts_again(Some(&policy), 1, minute));
        assert!(!starts_again(Some(&policy), 1, minute - Duration::from_millis(1)));
        assert!(!starts_again(Some(&policy), 7, minute));
        assert!(!starts_again(Some(&off), 1, minute));
        assert!(!starts_again(None, 1, minute));
    }
}
