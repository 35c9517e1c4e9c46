//! The filters of describe calls. Invariant: a filter that is not known is refused, never ignored.

use longshore_ec2 as ec2;
use longshore_model::Tags;
use longshore_wire::Fault;

/// The values that a resource has for a filter's name; `None` when the resource has no such filter.
pub type Values = Option<Vec<String>>;

pub struct Filters(Vec<(String, Vec<String>)>);

impl Filters {
    /// Reads the filters and refuses those for which `knows` says no.
    pub fn parse(given: Option<Vec<ec2::Filter>>, knows: impl Fn(&str) -> bool) -> Result<Self, Fault> {
        let mut filters = Vec::new();
        for ec2::Filter { name, values } in given.unwrap_or_default() {
            let name = name.unwrap_or_default();
            let is_tag = name == "tag-key" || name.starts_with("tag:");
            if !is_tag && !knows(&name) {
                return Err(Fault::sender(
                    "InvalidParameterValue",
                    format!("The filter '{name}' is invalid"),
                ));
            }
            filters.push((name, values.unwrap_or_default()));
        }
        Ok(Self(filters))
    }

    /// Whether a resource passes: for each filter, one of its values matches one of the resource's.
    pub fn pass(&self, tags: &Tags, values: impl Fn(&str) -> Values) -> bool {
        self.0.iter().all(|(name, wanted)| {
            let has = tag_values(name, tags).or_else(|| values(name)).unwrap_or_default();
            wanted.iter().any(|pattern| has.iter().any(|value| matches(pattern, value)))
        })
    }
}

fn tag_values(filter: &str, tags: &Tags) -> Values {
    if filter == "tag-key" {
        return Some(tags.0.keys().cloned().collect());
    }
    let key = filter.strip_prefix("tag:")?;
    Some(tags.0.get(key).cloned().into_iter().collect())
}

/// `*` stands for any text and `?` for one character; `\` takes the next one as it is.
fn matches(pattern: &str, value: &str) -> bool {
    let pattern: Vec<(char, bool)> = literal_or_wild(pattern);
    let value: Vec<char> = value.chars().collect();
    // The classic two-pointer walk: on a mismatch, the last star takes one character more.
    let (mut p, mut v) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while v < value.len() {
        match pattern.get(p) {
            Some(('*', true)) => {
                star = Some((p, v));
                p += 1;
            }
            Some((c, wild)) if (*wild && *c == '?') || value.get(v) == Some(c) => {
                p += 1;
                v += 1;
            }
            Some(_) | None => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    v = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|part| *part == ('*', true))
}

fn literal_or_wild(pattern: &str) -> Vec<(char, bool)> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => parts.extend(chars.next().map(|escaped| (escaped, false))),
            '*' | '?' => parts.push((c, true)),
            other => parts.push((other, false)),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, value, expected) in [
            ("default", "default", true),
            ("def*", "default", true),
            ("*a*t", "default", true),
            ("d?fault", "default", true),
            ("d?", "default", false),
            ("", "", true),
            ("*", "", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*b", "ab", true),
            ("*b", "ba", false),
        ] {
            assert_eq!(matches(pattern, value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn a_filter_that_is_not_known_is_refused() {
        let given = vec![ec2::Filter { name: Some("colour".to_owned()), values: None }];
        assert!(Filters::parse(Some(given), |name| name == "vpc-id").is_err());
    }
}
