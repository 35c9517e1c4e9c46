//! JSON patterns: `{ $.level = "ERROR" && ($.code >= 500 || $.user IS NULL) }`.

use serde_json::Value;

use super::{PatternError, quoted};

/// Deeper nesting of parentheses is refused.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug)]
pub enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Test(Vec<Step>, Test),
}

#[derive(Clone, Debug)]
pub enum Step {
    Member(String),
    Element(usize),
}

#[derive(Clone, Debug)]
pub enum Test {
    Compare(Comparison, f64),
    /// Text, in which `*` stands for any characters.
    Equal(String),
    NotEqual(String),
    Is(Value),
    NotExists,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    pub fn holds(&self, event: &Value) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(event)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(event)),
            Self::Test(path, test) => test.holds(find(event, path)),
        }
    }
}

fn find<'a>(event: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(event, |value, step| match step {
        Step::Member(name) => value.get(name),
        Step::Element(at) => value.get(at),
    })
}

impl Test {
    fn holds(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else { return matches!(self, Self::NotExists) };
        match self {
            Self::NotExists => false,
            Self::Is(wanted) => value == wanted,
            Self::Compare(comparison, wanted) => value.as_f64().is_some_and(|n| comparison.holds(n, *wanted)),
            Self::Equal(glob) => text_of(value).is_some_and(|text| glob_matches(glob, &text)),
            Self::NotEqual(glob) => text_of(value).is_some_and(|text| !glob_matches(glob, &text)),
        }
    }
}

impl Comparison {
    fn holds(self, value: f64, wanted: f64) -> bool {
        match self {
            Self::Equal => value == wanted,
            Self::NotEqual => value != wanted,
            Self::Less => value < wanted,
            Self::LessOrEqual => value <= wanted,
            Self::Greater => value > wanted,
            Self::GreaterOrEqual => value >= wanted,
        }
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn glob_matches(glob: &str, text: &str) -> bool {
    let Some((start, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

/// Parses a pattern that starts with `{`.
pub fn parse(text: &str) -> Result<Condition, PatternError> {
    let mut parser = Parser { rest: text, depth: 0 };
    parser.expect("{")?;
    let condition = parser.any()?;
    parser.expect("}")?;
    if !parser.rest.trim().is_empty() {
        return Err(parser.error("nothing may follow the closing brace"));
    }
    Ok(condition)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Condition, PatternError> {
        let mut conditions = vec![self.all()?];
        while self.take("||") {
            conditions.push(self.all()?);
        }
        Ok(Condition::Any(conditions))
    }

    fn all(&mut self) -> Result<Condition, PatternError> {
        let mut conditions = vec![self.condition()?];
        while self.take("&&") {
            conditions.push(self.condition()?);
        }
        Ok(Condition::All(conditions))
    }

    fn condition(&mut self) -> Result<Condition, PatternError> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.error("too many parentheses"));
            }
            let condition = self.any()?;
            self.expect(")")?;
            self.depth -= 1;
            return Ok(condition);
        }
        let path = self.path()?;
        Ok(Condition::Test(path, self.test()?))
    }

    fn path(&mut self) -> Result<Vec<Step>, PatternError> {
        self.expect("$")?;
        let mut path = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix('.') {
                let end =
                    rest.find(|c: char| !(c.is_alphanumeric() || "_-@".contains(c))).unwrap_or(rest.len());
                if end == 0 {
                    return Err(self.error("a name must follow the dot"));
                }
                path.push(Step::Member(rest[..end].to_owned()));
                self.rest = &rest[end..];
            } else if self.rest.starts_with('[') {
                self.expect("[")?;
                self.skip_space();
                path.push(self.subscript()?);
                self.expect("]")?;
            } else {
                return Ok(path);
            }
        }
    }

    fn subscript(&mut self) -> Result<Step, PatternError> {
        if self.rest.starts_with('"') {
            let (name, rest) = quoted(self.rest)?;
            self.rest = rest;
            return Ok(Step::Member(name));
        }
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let at = self.rest[..end]
            .parse()
            .map_err(|_| self.error("a subscript must be a number or a quoted name"))?;
        self.rest = &self.rest[end..];
        Ok(Step::Element(at))
    }

    fn test(&mut self) -> Result<Test, PatternError> {
        if self.take_word("NOT") {
            return if self.take_word("EXISTS") {
                Ok(Test::NotExists)
            } else {
                Err(self.error("EXISTS must follow NOT"))
            };
        }
        if self.take_word("IS") {
            for (word, value) in
                [("TRUE", Value::Bool(true)), ("FALSE", Value::Bool(false)), ("NULL", Value::Null)]
            {
                if self.take_word(word) {
                    return Ok(Test::Is(value));
                }
            }
            return Err(self.error("TRUE, FALSE or NULL must follow IS"));
        }
        let comparison = self.comparison()?;
        let (text, in_quotes) = self.literal()?;
        let number = text.parse::<f64>().ok().filter(|n| !in_quotes && n.is_finite());
        match (number, comparison) {
            (Some(number), comparison) => Ok(Test::Compare(comparison, number)),
            (None, Comparison::Equal) => Ok(Test::Equal(text)),
            (None, Comparison::NotEqual) => Ok(Test::NotEqual(text)),
            (None, _) => Err(self.error("only numbers can be compared so")),
        }
    }

    fn comparison(&mut self) -> Result<Comparison, PatternError> {
        for (sign, comparison) in [
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("=", Comparison::Equal),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ] {
            if self.take(sign) {
                return Ok(comparison);
            }
        }
        Err(self.error("a comparison must follow the selector"))
    }

    fn literal(&mut self) -> Result<(String, bool), PatternError> {
        self.skip_space();
        if self.rest.starts_with('%') {
            return Err(PatternError::Unsupported("regular expressions"));
        }
        if self.rest.starts_with('"') {
            let (text, rest) = quoted(self.rest)?;
            self.rest = rest;
            return Ok((text, true));
        }
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || "(){}&|=<>!".contains(c))
            .unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.error("a value must follow the comparison"));
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok((text.to_owned(), false))
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, sign: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.skip_space();
        let Some(rest) = self.rest.get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word)) else {
            return false;
        };
        let after = &self.rest[rest.len()..];
        if after.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            return false;
        }
        self.rest = after;
        true
    }

    fn expect(&mut self, sign: &str) -> Result<(), PatternError> {
        if self.take(sign) { Ok(()) } else { Err(self.error(&format!("`{sign}` is missing"))) }
    }

    fn error(&self, what: &str) -> PatternError {
        let near: String = self.rest.chars().take(20).collect();
        PatternError::Json(format!("{what} near '{near}'"))
    }
}
