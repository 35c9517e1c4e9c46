//! Pages of list calls. Invariant: following `nextToken` to its end gives each element once, also when elements
//! come and go meanwhile: a token names the last element given, not a position.

use super::invalid;
use longshore_ecs as ecs;

/// Which way a list's keys run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// One page of a list whose keys run in `order`, and the token of the next page.
pub fn page<T>(
    items: impl Iterator<Item = (String, T)>,
    order: Order,
    token: Option<&str>,
    max_results: Option<i32>,
    default_size: usize,
) -> Result<(Vec<T>, Option<String>), ecs::Error> {
    let size = size(max_results, default_size)?;
    let after = token.map(decode).transpose()?;
    let given = |key: &str| match (&after, order) {
        (None, _) => false,
        (Some(last), Order::Ascending) => key <= last.as_str(),
        (Some(last), Order::Descending) => key >= last.as_str(),
    };
    let mut rest = items.skip_while(|(key, _)| given(key));
    let (mut page, mut last) = (Vec::new(), None);
    for (key, item) in rest.by_ref().take(size) {
        page.push(item);
        last = Some(key);
    }
    let next = rest.next().and(last).map(|last| encode(&last));
    Ok((page, next))
}

fn size(max_results: Option<i32>, default: usize) -> Result<usize, ecs::Error> {
    match max_results {
        None => Ok(default),
        Some(size @ 1..=100) => Ok(size as usize),
        Some(size) => Err(invalid(format!("maxResults must be between 1 and 100, and is {size}."))),
    }
}

fn encode(last: &str) -> String {
    last.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(token: &str) -> Result<String, ecs::Error> {
    let digits = || token.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Option<Vec<u8>> = digits()
        .map(|pair| pair.filter(|p| p.len() == 2).and_then(|p| u8::from_str_radix(p, 16).ok()))
        .collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| invalid("Invalid token."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(order: Order, token: Option<&str>, size: i32) -> Result<(Vec<u8>, Option<String>), ecs::Error> {
        let mut items = vec![("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)];
        if order == Order::Descending {
            items.reverse();
        }
        page(items.into_iter(), order, token, Some(size), 100)
    }

    #[test]
    fn pages_follow_one_another() {
        let (first, token) = check(Order::Ascending, None, 2).unwrap();
        assert_eq!(first, [1, 2]);
        assert_eq!(check(Order::Ascending, token.as_deref(), 2).unwrap(), (vec![3], None));
        let (first, token) = check(Order::Descending, None, 1).unwrap();
        assert_eq!(first, [3]);
        assert_eq!(check(Order::Descending, token.as_deref(), 100).unwrap(), (vec![2, 1], None));
    }

    #[test]
    fn sizes_and_tokens_are_checked() {
        for (token, size) in [(None, 0), (None, 101), (Some("zz"), 1), (Some("\u{e9}"), 1), (Some("6"), 1)] {
            assert!(check(Order::Ascending, token, size).is_err(), "{token:?} {size}");
        }
    }
}
