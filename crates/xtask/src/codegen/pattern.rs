//! The models' patterns are Java's; here they become what `regex` reads.
//! Invariant: what is returned compiles.

/// Patterns that look ahead, which `regex` does not, and the part of each that it can say. The service's own code checks
/// the rest.
const LOOKING_AHEAD: [(&str, &str); 3] = [
    ("^(?!arn:)[!-~]{1,1024}$", "^[!-~]{1,1024}$"),
    ("^(?!arn:)[!-~]{1,253}$", "^[!-~]{1,253}$"),
    (
        "((?=^.{1,127}$)^([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9])(\\.([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9]))*$)|(^\\.$)",
        "(^([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9])(\\.([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9]))*$)|(^\\.$)",
    ),
];

/// Rewrites `\u0020` escapes, and the classes `\w`, `\d`, `\s`, which mean ASCII in Java.
pub fn translate(pattern: &str) -> Result<String, String> {
    let known = LOOKING_AHEAD.iter().find(|(looking, _)| *looking == pattern);
    let pattern = known.map_or(pattern, |(_, said)| said);
    let mut source = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        source.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(letter) = rest.chars().next() else {
            return Err(format!("pattern {pattern:?} ends in a backslash"));
        };
        rest = &rest[letter.len_utf8()..];
        match letter {
            'u' => {
                let digits = unicode_digits(rest);
                source.push_str(&format!("\\x{{{}}}", &rest[..digits]));
                rest = &rest[digits..];
            }
            'w' => source.push_str("[0-9A-Za-z_]"),
            'W' => source.push_str("[^0-9A-Za-z_]"),
            'd' => source.push_str("[0-9]"),
            'D' => source.push_str("[^0-9]"),
            's' => source.push_str("[ \\t\\n\\r\\f\\x0B]"),
            'S' => source.push_str("[^ \\t\\n\\r\\f\\x0B]"),
            other => source.extend(['\\', other]),
        }
    }
    source.push_str(rest);
    match regex::Regex::new(&format!("^(?:{source})$")) {
        Ok(_) => Ok(source),
        Err(error) => Err(format!("pattern {pattern:?} cannot be compiled: {error}")),
    }
}

/// Four digits as in Java; five or six where that still is a character, as some models write.
fn unicode_digits(rest: &str) -> usize {
    let digits = rest.bytes().take(6).take_while(u8::is_ascii_hexdigit).count();
    let is_character = |digits: &usize| {
        u32::from_str_radix(&rest[..*digits], 16).is_ok_and(|code| char::from_u32(code).is_some())
    };
    (1..=digits).rev().find(is_character).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        let regex = regex::Regex::new(&format!("^(?:{})$", translate(pattern).unwrap())).unwrap();
        matching.iter().for_each(|text| assert!(regex.is_match(text), "{pattern} should match {text:?}"));
        other.iter().for_each(|text| assert!(!regex.is_match(text), "{pattern} should not match {text:?}"));
    }

    #[test]
    fn java_means_ascii() {
        check(r"[\w+=,.@-]*", &["", "a_b@c-d"], &["é", "a b"]);
        check(r"\S{2,3}", &["ab", "é–x"], &["a b", "a"]);
        check(r"\d{3}", &["123"], &["١٢٣"]);
        check(r"[\w-_]*", &["a-b_c"], &["a b"]);
    }

    #[test]
    fn unicode_escapes_are_read() {
        let text = r"[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+";
        check(text, &["a\tb", "é", "𝄞"], &["", "\u{1}"]);
    }

    #[test]
    fn what_regex_lacks_is_an_error() {
        assert!(translate(r"^(?!aws:).*").is_err());
        assert!(translate("\\").is_err());
    }
}
