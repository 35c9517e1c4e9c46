//! Conditions of rules. Invariant: each kind is there as often as AWS lets it be, and every value is one that it takes.
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-condition-types.html>.

use super::{invalid, refuse};
use crate::refuse::Given;
use longshore_elbv2 as elb;
use longshore_model::elb::{Condition, Pair};
use longshore_model::vpc::Cidr;
use longshore_wire::Fault;

/// Values, and wildcards, of all conditions of a rule.
const MOST: usize = 5;
/// Letters of a value.
const LONGEST: usize = 128;
const LONGEST_NAME: usize = 40;

pub fn parse(given: Vec<elb::RuleCondition>) -> Result<Vec<Condition>, Fault> {
    let conditions = given.into_iter().map(parse_one).collect::<Result<Vec<_>, _>>()?;
    if conditions.is_empty() {
        return Err(invalid("A condition must be specified"));
    }
    for (at, condition) in conditions.iter().enumerate() {
        let field = field(condition);
        let may_repeat = matches!(condition, Condition::HttpHeader { .. } | Condition::QueryString(_));
        if !may_repeat && conditions.iter().take(at).any(|other| self::field(other) == field) {
            return Err(invalid(format!("A rule can only have one '{field}' condition")));
        }
    }
    if conditions.iter().map(|condition| texts(condition).len()).sum::<usize>() > MOST {
        return Err(invalid(format!("A rule can only have '{MOST}' condition values")));
    }
    let wild = |condition: &Condition| match condition {
        Condition::HttpRequestMethod(_) | Condition::SourceIp(_) => 0,
        _ => texts(condition).iter().map(|text| wildcards(text)).sum(),
    };
    if conditions.iter().map(wild).sum::<usize>() > MOST {
        return Err(invalid(format!("A rule can only have '{MOST}' wildcards in its conditions")));
    }
    Ok(conditions)
}

/// `*` and `?`, where no backslash stands before them.
fn wildcards(text: &str) -> usize {
    let mut escaped = false;
    let counts = |letter: char| {
        let counts = matches!(letter, '*' | '?') && !escaped;
        escaped = letter == '\\' && !escaped;
        counts
    };
    text.chars().map(counts).filter(|counts| *counts).count()
}

/// One text for each value.
fn texts(condition: &Condition) -> Vec<String> {
    match condition {
        Condition::HostHeader(values)
        | Condition::PathPattern(values)
        | Condition::HttpHeader { values, .. }
        | Condition::HttpRequestMethod(values) => values.clone(),
        Condition::QueryString(pairs) => {
            pairs.iter().map(|pair| pair.key.clone().unwrap_or_default() + &pair.value).collect()
        }
        Condition::SourceIp(blocks) => blocks.iter().map(Cidr::to_string).collect(),
    }
}

/// What a request says of one condition: the two forms of hosts and paths, and the rest.
struct Parts {
    values: Option<Vec<String>>,
    host: Option<elb::HostHeaderConditionConfig>,
    path: Option<elb::PathPatternConditionConfig>,
    header: Option<elb::HttpHeaderConditionConfig>,
    method: Option<elb::HttpRequestMethodConditionConfig>,
    query: Option<elb::QueryStringConditionConfig>,
    source: Option<elb::SourceIpConditionConfig>,
}

fn parse_one(given: elb::RuleCondition) -> Result<Condition, Fault> {
    let elb::RuleCondition {
        field,
        host_header_config: host,
        http_header_config: header,
        http_request_method_config: method,
        path_pattern_config: path,
        query_string_config: query,
        regex_values,
        source_ip_config: source,
        values,
    } = given;
    let regex = |given: Option<&Option<Vec<String>>>| given.is_some_and(Given::given);
    refuse(&[
        ("Conditions.RegexValues", regex_values.given()),
        ("Conditions.HostHeaderConfig.RegexValues", regex(host.as_ref().map(|host| &host.regex_values))),
        ("Conditions.PathPatternConfig.RegexValues", regex(path.as_ref().map(|path| &path.regex_values))),
        (
            "Conditions.HttpHeaderConfig.RegexValues",
            regex(header.as_ref().map(|header| &header.regex_values)),
        ),
    ])?;
    let values = values.filter(|values| !values.is_empty());
    let field = field.unwrap_or_default();
    let parts = Parts { values, host, path, header, method, query, source };
    check_form(&field, &parts)?;
    let Parts { values, host, path, header, method, query, source } = parts;
    match field.as_str() {
        "host-header" => {
            parse_hosts(values.or_else(|| host.and_then(|host| host.values)).unwrap_or_default())
        }
        "path-pattern" => {
            parse_paths(values.or_else(|| path.and_then(|path| path.values)).unwrap_or_default())
        }
        "http-header" => parse_header(header.unwrap_or_default()),
        "http-request-method" => parse_methods(method.and_then(|method| method.values).unwrap_or_default()),
        "query-string" => parse_query(query.and_then(|query| query.values).unwrap_or_default()),
        _ => parse_sources(source.and_then(|source| source.values).unwrap_or_default()),
    }
}

const FIELDS: [&str; 6] =
    ["host-header", "http-header", "http-request-method", "path-pattern", "query-string", "source-ip"];

/// Whether the settings that are given are those of the field.
fn check_form(field: &str, parts: &Parts) -> Result<(), Fault> {
    if !FIELDS.contains(&field) {
        return Err(invalid(format!("Condition field '{field}' must be one of '[{}]'", FIELDS.join(", "))));
    }
    let configs = [
        ("host-header", "HostHeaderConfig", parts.host.is_some()),
        ("path-pattern", "PathPatternConfig", parts.path.is_some()),
        ("http-header", "HttpHeaderConfig", parts.header.is_some()),
        ("http-request-method", "HttpRequestMethodConfig", parts.method.is_some()),
        ("query-string", "QueryStringConfig", parts.query.is_some()),
        ("source-ip", "SourceIpConfig", parts.source.is_some()),
    ];
    for (of, config, given) in configs {
        if given && of != field {
            return Err(invalid(format!("You cannot specify '{config}' for a condition of type '{field}'")));
        }
        let takes_values = matches!(field, "host-header" | "path-pattern");
        if of == field && takes_values && given && parts.values.is_some() {
            return Err(invalid(format!(
                "You cannot provide both Values and '{config}' for a condition of type '{field}'"
            )));
        }
        if of == field && !takes_values && parts.values.is_some() {
            return Err(invalid(format!("The 'Values' field is not compatible with '{field}'")));
        }
        if of == field && !takes_values && !given {
            return Err(invalid(format!("A '{config}' must be specified with '{field}'")));
        }
    }
    Ok(())
}

/// Whether there are values, none of which is too long or has letters that the field does not take.
fn check_values(
    field: &str,
    values: &[String],
    longest: usize,
    takes: impl Fn(char) -> bool,
) -> Result<(), Fault> {
    if values.is_empty() || values.iter().any(String::is_empty) {
        return Err(invalid("A condition value must be specified"));
    }
    for value in values {
        if value.chars().count() > longest {
            return Err(invalid(format!("The '{field}' value is too long; the limit is '{longest}'")));
        }
        if !value.chars().all(&takes) {
            return Err(invalid(format!("The '{field}' value '{value}' contains invalid characters")));
        }
    }
    Ok(())
}

fn parse_hosts(values: Vec<String>) -> Result<Condition, Fault> {
    check_values("host-header", &values, LONGEST, |c| c.is_ascii_alphanumeric() || "-.*?".contains(c))?;
    Ok(Condition::HostHeader(values))
}

fn parse_paths(values: Vec<String>) -> Result<Condition, Fault> {
    let takes = |c: char| c.is_ascii_alphanumeric() || "_-.$/~\"'@:+&*?()!,;=%\\".contains(c);
    check_values("path-pattern", &values, LONGEST, takes)?;
    Ok(Condition::PathPattern(values))
}

fn parse_header(given: elb::HttpHeaderConditionConfig) -> Result<Condition, Fault> {
    let elb::HttpHeaderConditionConfig { http_header_name, regex_values: _, values } = given;
    let name = http_header_name.unwrap_or_default();
    if name.is_empty() {
        return Err(invalid("A 'HttpHeaderName' must be specified with 'http-header'"));
    }
    if name.len() > LONGEST_NAME {
        return Err(invalid(format!(
            "The 'HttpHeaderName' value is too long; the limit is '{LONGEST_NAME}'"
        )));
    }
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if !name.chars().all(is_token) || name.eq_ignore_ascii_case("host") {
        return Err(invalid(format!("The 'HttpHeaderName' value '{name}' is not valid")));
    }
    let values = values.unwrap_or_default();
    check_values("http-header", &values, LONGEST, |c| !c.is_control())?;
    Ok(Condition::HttpHeader { name, values })
}

fn parse_methods(values: Vec<String>) -> Result<Condition, Fault> {
    check_values("http-request-method", &values, LONGEST_NAME, |_| true)?;
    if !values.iter().all(|value| value.chars().all(|c| c.is_ascii_uppercase() || "-_".contains(c))) {
        return Err(invalid(
            "The 'http-request-method' value is invalid; the allowed characters are A-Z, hyphen and underscore",
        ));
    }
    Ok(Condition::HttpRequestMethod(values))
}

fn parse_query(given: Vec<elb::QueryStringKeyValuePair>) -> Result<Condition, Fault> {
    let pair = |elb::QueryStringKeyValuePair { key, value }| {
        let value = value.filter(|value| !value.is_empty());
        let value =
            value.ok_or_else(|| invalid("A 'Value' must be specified in 'QueryStringKeyValuePair'"))?;
        let key = key.filter(|key| !key.is_empty());
        for (name, text) in [("Key", key.as_deref().unwrap_or_default()), ("Value", &value)] {
            if text.chars().count() > LONGEST {
                return Err(invalid(format!("The '{name}' value is too long; the limit is '{LONGEST}'")));
            }
        }
        Ok(Pair { key, value })
    };
    let pairs = given.into_iter().map(pair).collect::<Result<Vec<_>, _>>()?;
    if pairs.is_empty() {
        return Err(invalid("A condition value must be specified"));
    }
    Ok(Condition::QueryString(pairs))
}

fn parse_sources(values: Vec<String>) -> Result<Condition, Fault> {
    if values.is_empty() {
        return Err(invalid("A 'source-ip' value must be specified"));
    }
    let block = |value: &String| {
        refuse(&[("A source-ip condition for IPv6", value.contains(':'))])?;
        value
            .parse::<Cidr>()
            .map_err(|_| invalid(format!("The 'source-ip' value '{value}' must be a CIDR block")))
    };
    values.iter().map(block).collect::<Result<Vec<_>, _>>().map(Condition::SourceIp)
}

fn field(condition: &Condition) -> &'static str {
    match condition {
        Condition::HostHeader(_) => "host-header",
        Condition::PathPattern(_) => "path-pattern",
        Condition::HttpHeader { .. } => "http-header",
        Condition::HttpRequestMethod(_) => "http-request-method",
        Condition::QueryString(_) => "query-string",
        Condition::SourceIp(_) => "source-ip",
    }
}

pub fn render(condition: &Condition) -> elb::RuleCondition {
    let bare =
        elb::RuleCondition { field: Some(field(condition).to_owned()), ..elb::RuleCondition::default() };
    match condition {
        Condition::HostHeader(values) => elb::RuleCondition {
            host_header_config: Some(elb::HostHeaderConditionConfig {
                values: Some(values.clone()),
                regex_values: None,
            }),
            values: Some(values.clone()),
            ..bare
        },
        Condition::PathPattern(values) => elb::RuleCondition {
            path_pattern_config: Some(elb::PathPatternConditionConfig {
                values: Some(values.clone()),
                regex_values: None,
            }),
            values: Some(values.clone()),
            ..bare
        },
        Condition::HttpHeader { name, values } => elb::RuleCondition {
            http_header_config: Some(elb::HttpHeaderConditionConfig {
                http_header_name: Some(name.clone()),
                regex_values: None,
                values: Some(values.clone()),
            }),
            ..bare
        },
        Condition::HttpRequestMethod(values) => elb::RuleCondition {
            http_request_method_config: Some(elb::HttpRequestMethodConditionConfig {
                values: Some(values.clone()),
            }),
            ..bare
        },
        Condition::QueryString(pairs) => {
            let pair = |pair: &Pair| elb::QueryStringKeyValuePair {
                key: pair.key.clone(),
                value: Some(pair.value.clone()),
            };
            let values = Some(pairs.iter().map(pair).collect());
            elb::RuleCondition {
                query_string_config: Some(elb::QueryStringConditionConfig { values }),
                ..bare
            }
        }
        Condition::SourceIp(blocks) => {
            let values = Some(blocks.iter().map(Cidr::to_string).collect());
            elb::RuleCondition { source_ip_config: Some(elb::SourceIpConditionConfig { values }), ..bare }
        }
    }
}
