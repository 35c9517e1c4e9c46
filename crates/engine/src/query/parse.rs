//! Reads expressions. Precedence is as usual: `not` binds closest, then `and`, then `or`.

use super::{Error, Expression, LONGEST, Pattern, Relation, Subject, Value};
use regex::RegexBuilder;

/// How deep parentheses and negations may be nested.
const DEEPEST: usize = 64;
/// The most memory that a regular expression may take, in bytes.
const PATTERN_SIZE: usize = 1 << 18;

pub fn expression(text: &str) -> Result<Expression, Error> {
    let characters: Vec<char> = text.chars().take(LONGEST + 1).collect();
    let mut parser = Parser { characters, at: 0, depth: 0 };
    if parser.characters.len() > LONGEST {
        return Err(parser.error(format!("an expression has at most {LONGEST} characters")));
    }
    let expression = parser.or()?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(expression),
        Some(found) => Err(parser.error(format!("'and', 'or' or the end was expected, not '{found}'"))),
    }
}

struct Parser {
    characters: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn or(&mut self) -> Result<Expression, Error> {
        let mut left = self.and()?;
        while self.take_any(&["||"]) || self.take_word(&["or"]) {
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression, Error> {
        let mut left = self.not()?;
        while self.take_any(&["&&"]) || self.take_word(&["and"]) {
            left = Expression::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expression, Error> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.error(format!("parentheses and negations are at most {DEEPEST} deep")));
        }
        let expression = if self.take_word(&["not"]) || self.take_any(&["!"]) {
            Expression::Not(Box::new(self.not()?))
        } else if self.take_any(&["("]) {
            let inner = self.or()?;
            if !self.take_any(&[")"]) {
                return Err(self.error("')' was expected"));
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn comparison(&mut self) -> Result<Expression, Error> {
        let subject = self.subject()?;
        let not = |expression| Expression::Not(Box::new(expression));
        if self.take_any(&["=~"]) || self.take_word(&["matches"]) {
            return Ok(Expression::Matches(subject, self.pattern()?));
        }
        if self.take_any(&["!~"]) || self.take_word(&["not_matches"]) {
            return Ok(not(Expression::Matches(subject, self.pattern()?)));
        }
        if self.take_any(&["!="]) || self.take_word(&["not_equals"]) {
            return Ok(not(Expression::Is(subject, Relation::Equal, self.value()?)));
        }
        if let Some(relation) = self.relation() {
            return Ok(Expression::Is(subject, relation, self.value()?));
        }
        if self.take_word(&["exists"]) {
            return Ok(Expression::Exists(subject));
        }
        if self.take_word(&["!exists", "not_exists"]) {
            return Ok(not(Expression::Exists(subject)));
        }
        if self.take_word(&["in"]) {
            return Ok(Expression::In(subject, self.list()?));
        }
        if self.take_word(&["!in", "not_in"]) {
            return Ok(not(Expression::In(subject, self.list()?)));
        }
        Err(self.error("an operator was expected: == != > >= < <= =~ !~ in !in exists !exists"))
    }

    fn relation(&mut self) -> Option<Relation> {
        // The longer sign of two that begin alike comes first.
        let relations: [(&str, &str, Relation); 5] = [
            ("==", "equals", Relation::Equal),
            (">=", "greater_than_equal", Relation::GreaterOrEqual),
            ("<=", "less_than_equal", Relation::LessOrEqual),
            (">", "greater_than", Relation::Greater),
            ("<", "less_than", Relation::Less),
        ];
        let taken =
            relations.iter().find(|(sign, word, _)| self.take_any(&[sign]) || self.take_word(&[word]));
        taken.map(|(_, _, relation)| *relation)
    }

    fn subject(&mut self) -> Result<Subject, Error> {
        self.skip_space();
        let begin = self.at;
        let name = self.while_of(|c| c.is_ascii_alphanumeric() || "-_./:\\".contains(c));
        let subject = match name.split_once(':') {
            Some(("attribute", attribute)) if !attribute.is_empty() => {
                Some(Subject::Attribute(attribute.to_owned()))
            }
            Some(("task", "group")) => Some(Subject::TaskGroup),
            Some(_) => None,
            None => match name.as_str() {
                "agentConnected" => Some(Subject::AgentConnected),
                "agentVersion" => Some(Subject::AgentVersion),
                "ec2InstanceId" => Some(Subject::Ec2InstanceId),
                "registeredAt" => Some(Subject::RegisteredAt),
                "runningTasksCount" => Some(Subject::RunningTasksCount),
                _ => None,
            },
        };
        subject.ok_or_else(|| {
            self.at = begin;
            self.error(
                "a subject was expected: agentConnected, agentVersion, attribute:NAME, ec2InstanceId, registeredAt, \
                 runningTasksCount or task:group",
            )
        })
    }

    fn list(&mut self) -> Result<Vec<Value>, Error> {
        if !self.take_any(&["["]) {
            return Err(self.error("'[' was expected"));
        }
        let mut values = vec![self.value()?];
        while self.take_any(&[","]) {
            values.push(self.value()?);
        }
        if self.take_any(&["]"]) { Ok(values) } else { Err(self.error("',' or ']' was expected")) }
    }

    /// In quotes, or bare up to a space or a sign that ends a value.
    fn value(&mut self) -> Result<Value, Error> {
        self.skip_space();
        let value = match self.peek() {
            Some(quote @ ('"' | '\'')) => {
                self.at += 1;
                let value = self.while_of(|c| c != quote);
                if self.peek().is_none() {
                    return Err(self.error(format!("{quote} was expected")));
                }
                self.at += 1;
                value
            }
            _ => self.while_of(|c| !c.is_whitespace() && !"()[],\"'".contains(c)),
        };
        if value.is_empty() { Err(self.error("a value was expected")) } else { Ok(Value(value)) }
    }

    fn pattern(&mut self) -> Result<Pattern, Error> {
        self.skip_space();
        let begin = self.at;
        let Value(text) = self.value()?;
        // Anchored, because the whole value is to match, as in Java's `matches`.
        let compiled = RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(PATTERN_SIZE)
            .nest_limit(DEEPEST as u32)
            .build();
        compiled.map(|compiled| Pattern { text, compiled }).map_err(|_| {
            self.at = begin;
            self.error("this is no regular expression, or too large a one,")
        })
    }

    /// Takes the first of these signs that comes next.
    fn take_any(&mut self, signs: &[&str]) -> bool {
        self.skip_space();
        let comes = |sign: &&&str| self.rest().starts_with(&sign.chars().collect::<Vec<_>>());
        let Some(sign) = signs.iter().find(comes) else { return false };
        // `!exists` and its like are words; `!` alone negates what follows, and `!=` and `!~` compare.
        self.at += sign.chars().count();
        true
    }

    /// Takes the first of these words that comes next, whole.
    fn take_word(&mut self, words: &[&str]) -> bool {
        self.skip_space();
        let ends = |c: Option<&char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && *c != '_' && *c != ':');
        let comes = |word: &&&str| {
            let word: Vec<char> = word.chars().collect();
            self.rest().get(..word.len()).is_some_and(|next| {
                next.iter().zip(&word).all(|(found, wanted)| found.eq_ignore_ascii_case(wanted))
            }) && ends(self.rest().get(word.len()))
        };
        let Some(word) = words.iter().find(comes) else { return false };
        self.at += word.chars().count();
        true
    }

    fn while_of(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let taken: String = self.rest().iter().take_while(|c| belongs(**c)).collect();
        self.at += taken.chars().count();
        taken
    }

    fn skip_space(&mut self) {
        self.while_of(char::is_whitespace);
    }

    fn peek(&self) -> Option<char> {
        self.rest().first().copied()
    }

    fn rest(&self) -> &[char] {
        self.characters.get(self.at..).unwrap_or_default()
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error { position: self.at + 1, message: message.into() }
    }
}
