//! Expressions as text, and what they say of one instance.

use super::*;
use crate::testing::{self, apply};
use longshore_model::container_instance::{AgentVersion, Capacity, Membership, Status};
use longshore_model::task::{LaunchType, Task};
use longshore_model::{Timestamp, Transaction, Version};
use proptest::prelude::*;

fn subject() -> (View, ContainerInstance) {
    let membership = Membership {
        scope: testing::scope(),
        cluster: "default".to_owned(),
        launch_type: LaunchType::Ec2,
        ec2_instance_id: Some("i-0123456789abcdef0".to_owned()),
        launched: false,
        capacity_provider: None,
        status: Status::Active,
    };
    let attributes = [
        ("ecs.instance-type", "t2.small"),
        ("ecs.availability-zone", "us-east-1a"),
        ("rack", "12"),
        ("ssd", ""),
        ("note", "two words"),
    ];
    let instance = ContainerInstance {
        capacity: Capacity::Cluster(membership),
        attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        agent: AgentVersion { agent: "1.10.2".to_owned(), runtime: String::new() },
        registered_at: Timestamp(1_600_000_000_000),
        ..testing::instance(1, 1024, 4096)
    };
    let mut view = testing::view(std::slice::from_ref(&instance));
    let task = Task { group: "service:web".to_owned(), last_status: LastStatus::Running, ..testing::task() };
    let mut transaction = Transaction::at(Version(1));
    transaction.create(&task);
    apply(&mut view, transaction);
    (view, instance)
}

fn check(expressions: &[&str], expected: bool) {
    let (view, instance) = subject();
    for text in expressions {
        let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(expression.is_true_of(&view, &instance), expected, "{text}");
    }
}

#[test]
fn what_is_true() {
    check(
        &[
            "attribute:ecs.instance-type == t2.small",
            "attribute:ecs.instance-type==t2.small",
            "attribute:ecs.instance-type equals 't2.small'",
            "attribute:ecs.instance-type =~ t2.*",
            "attribute:ecs.instance-type matches \"t[23]\\.(small|micro)\"",
            "attribute:ecs.instance-type !~ t3.*",
            "attribute:ecs.instance-type in [t2.micro, t2.small]",
            "attribute:ecs.instance-type !in [t2.micro,g2.large]",
            "attribute:ecs.instance-type not_in [t2.micro]",
            "attribute:ecs.instance-type != g2.2xlarge",
            "attribute:ecs.availability-zone in [us-east-1a, us-east-1b] and attribute:ecs.instance-type != t2.micro",
            "attribute:ssd exists",
            "attribute:hdd !exists",
            "attribute:hdd not_exists",
            "not (attribute:hdd exists)",
            "!(attribute:hdd exists)",
            "attribute:note == 'two words'",
            "attribute:rack > 9 and attribute:rack <= 12",
            "attribute:hdd != x",
            "agentConnected == true",
            "agentVersion >= 1.9.0",
            "agentVersion == 1.10.2.0",
            "agentVersion less_than 1.11",
            "ec2InstanceId == i-0123456789abcdef0",
            "ec2InstanceId in ['i-0123456789abcdef0', 'i-1']",
            "registeredAt > 2018-02-18",
            "registeredAt < 2026-02-18T13:00:00Z",
            "runningTasksCount == 1",
            "runningTasksCount < 10",
            "task:group == service:web",
            "not(task:group == database)",
            "task:group =~ service:.*",
            "attribute:a == 1 or attribute:rack == 12 and attribute:ssd exists",
            "attribute:rack == 12 || attribute:a == 1 && attribute:b == 2",
            "NOT attribute:a exists AND attribute:rack exists",
        ],
        true,
    );
}

#[test]
fn what_is_false() {
    check(
        &[
            "attribute:ecs.instance-type =~ t2",
            "attribute:hdd == x",
            "attribute:rack < 9",
            "attribute:rack > 100",
            "agentConnected == false",
            "agentVersion > 1.10.2",
            "registeredAt > 2026-02-18",
            "registeredAt > yesterday",
            "runningTasksCount > many",
            "task:group == web",
            "(attribute:a == 1 or attribute:rack == 12) and attribute:hdd exists",
            "not attribute:rack == 12",
        ],
        false,
    );
}

#[test]
fn what_is_wrong_says_where() {
    let long = "x".repeat(LONGEST + 1);
    let deep = "(".repeat(100);
    for (text, position, message) in [
        ("", 1, "a subject was expected"),
        ("color == red", 1, "a subject was expected"),
        ("attribute: == red", 1, "a subject was expected"),
        ("attribute:color", 16, "an operator was expected"),
        ("attribute:color = red", 17, "an operator was expected"),
        ("attribute:color ==", 19, "a value was expected"),
        ("attribute:color == red green", 24, "'and', 'or' or the end was expected"),
        ("attribute:color in red", 20, "'[' was expected"),
        ("attribute:color in [red", 24, "',' or ']' was expected"),
        ("attribute:color in []", 21, "a value was expected"),
        ("(attribute:color exists", 24, "')' was expected"),
        ("attribute:color == 'red", 24, "' was expected"),
        ("attribute:color =~ *", 20, "this is no regular expression"),
        ("attribute:color =~ \"(a{1000}){1000}\"", 20, "this is no regular expression, or too large"),
        (&long, 1, "at most 2000 characters"),
        (&deep, 65, "at most 64 deep"),
    ] {
        let error = Expression::parse(text).unwrap_err();
        assert!(error.message.contains(message), "{text}: {error}");
        assert_eq!(error.position, position, "{text}: {error}");
    }
}

fn expressions() -> impl Strategy<Value = Expression> {
    let subjects = prop_oneof![
        Just(Subject::AgentConnected),
        Just(Subject::AgentVersion),
        Just(Subject::TaskGroup),
        "[a-z][a-z./-]{0,8}".prop_map(Subject::Attribute),
    ];
    let relations = prop_oneof![Just(Relation::Equal), Just(Relation::Less), Just(Relation::GreaterOrEqual)];
    let values = || "[a-zA-Z0-9 .()!&=]{1,8}|[a-z\"]{1,4}".prop_map(Value);
    let leaves = (subjects, relations, values(), prop::collection::vec(values(), 1..3), 0..3).prop_map(
        |(subject, relation, value, values, kind)| match kind {
            0 => Expression::Exists(subject),
            1 => Expression::Is(subject, relation, value),
            _ => Expression::In(subject, values),
        },
    );
    leaves.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Expression::And(Box::new(a), Box::new(b))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Expression::Or(Box::new(a), Box::new(b))),
            inner.prop_map(|inner| Expression::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #[test]
    fn reading_never_panics(text in "\\PC{0,80}") {
        let _ = Expression::parse(&text);
    }

    #[test]
    fn words_of_the_language_never_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "attribute:a", "task:group", "==", "!=", "=~", "!", "in", "[", "]", "(", ")", ",", "and", "or", "not", "'x", "x",
            "exists", "!exists", "[a", "*", "registeredAt", ">",
        ]), 0..12),
    ) {
        let (view, instance) = subject();
        if let Ok(expression) = Expression::parse(&words.join(" ")) {
            expression.is_true_of(&view, &instance);
        }
    }

    #[test]
    fn what_is_printed_reads_the_same(expression in expressions()) {
        let printed = expression.to_string();
        let read = Expression::parse(&printed);
        prop_assert_eq!(read.map(|read| read.to_string()), Ok(printed));
    }
}
