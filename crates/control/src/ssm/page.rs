//! Pages of what is listed by name.

use longshore_ssm as ssm;
use longshore_wire::Fault;

/// What follows the name that the token holds, and the token of what follows that.
pub fn page<T>(
    found: Vec<T>,
    name: impl Fn(&T) -> String,
    token: Option<String>,
    size: Option<i32>,
    most: usize,
) -> Result<(Vec<T>, Option<String>), Fault> {
    let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(most).clamp(1, most);
    let after = match token {
        None => None,
        Some(token) => Some(token.strip_prefix("after:").map(str::to_owned).ok_or_else(|| {
            Fault::from(ssm::Error::InvalidNextToken("The specified token is not valid.".to_owned()))
        })?),
    };
    let mut rest = found.into_iter().filter(|item| after.as_ref().is_none_or(|after| name(item) > *after));
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let last = page.last().map(|last| format!("after:{}", name(last)));
    Ok((page, last.filter(|_| rest.next().is_some())))
}
