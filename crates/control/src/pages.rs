//! Pages of describe calls. Invariant: a page begins after the last key of the one before, whatever was deleted between.

/// What a page has when the request does not say.
const MOST: usize = 400;

/// The page after `marker` of what is in the order of its keys, and the marker of the next one.
pub fn page<T>(
    all: impl Iterator<Item = (String, T)>,
    marker: Option<&str>,
    size: Option<i32>,
) -> (Vec<T>, Option<String>) {
    let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(MOST).min(MOST);
    let after = marker.filter(|marker| !marker.is_empty());
    let mut rest = all.filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
    let mut last = None;
    let mut page = Vec::new();
    for (key, item) in rest.by_ref().take(size) {
        last = Some(key);
        page.push(item);
    }
    let next = rest.next().and(last);
    (page, next)
}
