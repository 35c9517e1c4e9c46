//! Filter patterns: which messages a FilterLogEvents call gives.
//! Invariant: a pattern that is not fully understood is refused, never half applied.
//!
//! Follows <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html>: terms, quoted
//! phrases, `?optional`, `-excluded`, and JSON patterns. Space-delimited patterns and regular expressions are refused.

mod json;

/// A pattern that was understood.
#[derive(Clone, Debug)]
pub struct Pattern(Form);

#[derive(Clone, Debug)]
enum Form {
    Everything,
    Terms { all: Vec<String>, any: Vec<String>, none: Vec<String> },
    Json(json::Condition),
}

/// Why a pattern is refused; the text fits an InvalidParameterException.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("Invalid character(s) in term '{0}'")]
    Term(String),
    #[error("Invalid filter pattern: a quoted phrase does not end")]
    OpenQuote,
    #[error("Invalid filter pattern: {0}")]
    Json(String),
    #[error("Filter patterns with {0} are not supported")]
    Unsupported(&'static str),
}

impl Pattern {
    pub fn everything() -> Self {
        Self(Form::Everything)
    }

    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::everything());
        }
        if text.starts_with('[') {
            return Err(PatternError::Unsupported("space-delimited fields"));
        }
        if text.starts_with('{') {
            return json::parse(text).map(|condition| Self(Form::Json(condition)));
        }
        parse_terms(text).map(Self)
    }

    pub fn matches(&self, message: &str) -> bool {
        match &self.0 {
            Form::Everything => true,
            Form::Terms { all, any, none } => {
                all.iter().all(|term| message.contains(term.as_str()))
                    && (any.is_empty() || any.iter().any(|term| message.contains(term.as_str())))
                    && !none.iter().any(|term| message.contains(term.as_str()))
            }
            Form::Json(condition) => {
                message.trim_start().starts_with(['{', '['])
                    && serde_json::from_str(message).is_ok_and(|value| condition.holds(&value))
            }
        }
    }
}

fn parse_terms(text: &str) -> Result<Form, PatternError> {
    let (mut all, mut any, mut none) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = text;
    while !rest.is_empty() {
        let (list, after) = match rest.as_bytes().first() {
            Some(b'?') => (&mut any, &rest[1..]),
            Some(b'-') => (&mut none, &rest[1..]),
            _ => (&mut all, rest),
        };
        let (term, after) = if after.starts_with('"') { quoted(after)? } else { bare(after)? };
        list.push(term);
        rest = after.trim_start();
    }
    // Beside other terms AWS ignores optional ones.
    if !all.is_empty() || !none.is_empty() {
        any.clear();
    }
    Ok(Form::Terms { all, any, none })
}

fn bare(text: &str) -> Result<(String, &str), PatternError> {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (term, rest) = text.split_at(end);
    if term.starts_with('%') {
        return Err(PatternError::Unsupported("regular expressions"));
    }
    if term.is_empty() || !term.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Err(PatternError::Term(term.to_owned()));
    }
    Ok((term.to_owned(), rest))
}

/// A phrase in quotes, where a backslash takes the next character as it is; and what follows.
fn quoted(text: &str) -> Result<(String, &str), PatternError> {
    let mut phrase = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((phrase, &text[at + 1..])),
            '\\' => phrase.extend(chars.next().map(|(_, c)| c)),
            other => phrase.push(other),
        }
    }
    Err(PatternError::OpenQuote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        let parsed = Pattern::parse(pattern).unwrap();
        for message in matching {
            assert!(parsed.matches(message), "`{pattern}` should match `{message}`");
        }
        for message in other {
            assert!(!parsed.matches(message), "`{pattern}` should not match `{message}`");
        }
    }

    fn refused(pattern: &str) -> String {
        Pattern::parse(pattern).unwrap_err().to_string()
    }

    #[test]
    fn terms() {
        check("", &["", "anything"], &[]);
        check("ERROR", &["[ERROR 400] BAD REQUEST"], &["error", "INFO"]);
        check("ERROR ARGUMENTS", &["[ERROR 419] MISSING ARGUMENTS"], &["[ERROR 400] BAD REQUEST"]);
        check("?ERROR ?WARN", &["ERROR x", "WARN y"], &["INFO z"]);
        check("ERROR -EXITING", &["ERROR: INTERNAL"], &["ERROR, EXITING NOW", "fine"]);
        check(
            "\"INTERNAL SERVER ERROR\"",
            &["[ERROR 500] INTERNAL SERVER ERROR"],
            &["SERVER ERROR INTERNAL"],
        );
        check("-\"a b\"", &["a  b"], &["xa by"]);
        check(r#""say \"hi\"""#, &[r#"they say "hi""#], &["they say hi"]);
    }

    #[test]
    fn refused_terms() {
        assert_eq!(refused("req-id:1"), "Invalid character(s) in term 'req-id:1'");
        assert_eq!(refused("%x%"), "Filter patterns with regular expressions are not supported");
        assert_eq!(refused("[ip, user]"), "Filter patterns with space-delimited fields are not supported");
        assert_eq!(refused("\"open"), "Invalid filter pattern: a quoted phrase does not end");
    }

    #[test]
    fn json() {
        let event =
            r#"{"level":"ERROR","code":500,"user":{"name":"ann","tags":["x","y"]},"ok":false,"none":null}"#;
        for pattern in [
            r#"{ $.level = "ERROR" }"#,
            r#"{ $.level = ERR* && $.code >= 500 }"#,
            r#"{ ($.level = "INFO") || ($.user.name = "ann") }"#,
            r#"{ $.user.tags[1] = "y" }"#,
            r#"{ $.ok IS FALSE }"#,
            r#"{ $.none IS NULL }"#,
            r#"{ $.missing NOT EXISTS }"#,
            r#"{ $.level != "INFO" }"#,
            r#"{ $.code < 500.5 }"#,
            r#"{ $.code = 5* }"#,
        ] {
            check(pattern, &[event], &["ERROR 500", "{}}"]);
        }
        for pattern in [
            r#"{ $.level = "INFO" }"#,
            r#"{ $.missing = "x" }"#,
            r#"{ $.code > 500 }"#,
            r#"{ $.ok IS TRUE }"#,
        ] {
            check(pattern, &[], &[event]);
        }
        assert!(refused(r#"{ $.a ~ 1 }"#).starts_with("Invalid filter pattern"));
        assert!(refused(r#"{ $.a = 1"#).starts_with("Invalid filter pattern"));
        assert_eq!(refused(r#"{ $.a = %x% }"#), "Filter patterns with regular expressions are not supported");
        assert!(
            refused(&format!("{{ {} $.a = 1", "(".repeat(100_000))).starts_with("Invalid filter pattern")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"[\{\}\[\]$.a-c"=!<>&|()?%\\ *0-9-]{0,40}"#, message: String) {
            if let Ok(pattern) = Pattern::parse(&text) {
                pattern.matches(&message);
                pattern.matches(r#"{"a":{"b":[1,"c"]}}"#);
            }
        }
    }
}
