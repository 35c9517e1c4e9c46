//! The model's names as Rust's.
//! Invariant: two names of one scope never become the same one silently.

use std::collections::BTreeSet;

const KEYWORDS: &[&str] = &[
    "as", "async", "await", "box", "break", "const", "continue", "dyn", "else", "enum", "extern", "false",
    "fn", "for", "gen", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref",
    "return", "static", "struct", "trait", "true", "try", "type", "unsafe", "use", "where", "while", "yield",
];

/// Names that a type of the model would hide.
const TAKEN: &[&str] = &[
    "Box",
    "BTreeMap",
    "Default",
    "Error",
    "Option",
    "Result",
    "Self",
    "String",
    "Timestamp",
    "Value",
    "Vec",
];

/// `RunTaskRequest`, `TagType`; the first letter is raised.
pub fn type_name(shape: &str) -> String {
    let name = raise(shape);
    if TAKEN.contains(&name.as_str()) { format!("{name}Shape") } else { name }
}

/// `taskRoleArn` becomes `task_role_arn`, `type` becomes `r#type`.
pub fn field_name(member: &str) -> String {
    let name = snake(member);
    if KEYWORDS.contains(&name.as_str()) { format!("r#{name}") } else { name }
}

/// `RunTaskRequest` becomes `RUN_TASK_REQUEST`.
pub fn static_name(shape: &str) -> String {
    snake(shape).to_ascii_uppercase()
}

/// `FARGATE_SPOT` becomes `FargateSpot`, `t2.micro` becomes `T2Micro`; a name that is taken gets a number.
pub fn variant_names(values: &[String]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut names = Vec::with_capacity(values.len());
    for value in values {
        let base = variant_name(value);
        let mut name = base.clone();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            name = format!("{base}{number}");
            number += 1;
        }
        names.push(name);
    }
    names
}

pub fn check_types<'a>(shapes: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut taken = BTreeSet::new();
    for shape in shapes {
        if !taken.insert(static_name(shape)) {
            return Err(format!("the name of shape {shape} is taken by another one"));
        }
    }
    Ok(())
}

fn variant_name(value: &str) -> String {
    let mut name = String::new();
    for part in value.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
        let shouted = part.chars().all(|letter| !letter.is_ascii_lowercase());
        let part = if shouted { part.to_ascii_lowercase() } else { part.to_owned() };
        name.push_str(&raise(&part));
    }
    match name.chars().next() {
        None => "Empty".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("V{name}"),
        Some(_) if name == "Self" => "SelfValue".to_owned(),
        Some(_) => name,
    }
}

fn snake(name: &str) -> String {
    // Units count as words of their own.
    let name = name.replace("MiB", "Mib").replace("GiB", "Gib");
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 8);
    for (at, letter) in letters.iter().enumerate() {
        if !letter.is_ascii_alphanumeric() {
            snake.push('_');
            continue;
        }
        let before = at.checked_sub(1).and_then(|at| letters.get(at));
        let starts_word = before.is_some_and(|before| {
            let ends_acronym =
                before.is_ascii_uppercase() && letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
            before.is_ascii_lowercase() || before.is_ascii_digit() || ends_acronym
        });
        if letter.is_ascii_uppercase() && starts_word {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn raise(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_become_fields() {
        let check = |member, field: &str| assert_eq!(field_name(member), field);
        check("taskRoleArn", "task_role_arn");
        check("type", "r#type");
        check("ec2InstanceId", "ec2_instance_id");
        check("Ipv6CidrBlock", "ipv6_cidr_block");
        check("DNSName", "dns_name");
        check("VpcId", "vpc_id");
        check("memoryMiB", "memory_mib");
    }

    #[test]
    fn values_become_variants() {
        let names = [
            "FARGATE_SPOT",
            "awsvpc",
            "t2.micro",
            "x86_64",
            "TaskFailedToStart",
            "2xlarge",
            "",
            "a-b",
            "a_b",
        ];
        let expected = [
            "FargateSpot",
            "Awsvpc",
            "T2Micro",
            "X8664",
            "TaskFailedToStart",
            "V2xlarge",
            "Empty",
            "AB",
            "AB2",
        ];
        assert_eq!(variant_names(&names.map(str::to_owned)), expected);
    }

    #[test]
    fn shapes_that_clash_are_refused() {
        assert!(check_types(["fooBar", "FooBar"].into_iter()).is_err());
        assert!(check_types(["Foo", "Bar"].into_iter()).is_ok());
    }
}
