//! `docs/coverage.md` says what the routes serve.

use longshore_control::api::Services;
use longshore_control::coverage;

#[test]
fn coverage() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/coverage.md");
    let page = coverage::page(&Services::default());
    if std::env::var_os("LONGSHORE_UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(written, page, "docs/coverage.md is out of date: run this test with LONGSHORE_UPDATE=1");
}
