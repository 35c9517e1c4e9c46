//! What is served, as `docs/coverage.md` says it. Invariant: the page is written from the routes that answer, and a
//! test compares the two, so that it cannot lie.

use crate::api::{Routes, Services};
use std::fmt::Write;

/// The page, whole.
pub fn page(services: &Services) -> String {
    let mut page = String::from(
        "# What Longshore serves\n\n\
         <!-- Written by the test `coverage` of crates/control from its routes: run it with LONGSHORE_UPDATE=1 after a \
         change. -->\n\n\
         An operation that is not served answers with a clear error of its service, never as if it had worked. The \
         same holds for fields of served operations that have no effect yet.\n\n\
         | service | served | known, not served yet | other operations of the API |\n|---|---|---|---|\n",
    );
    for routes in services.all() {
        let (served, not_yet) = split(routes);
        let (name, others) = (routes.service.full_name, routes.service.unserved.len());
        let _ = writeln!(page, "| {name} | {} | {} | {others} |", served.len(), not_yet.len());
    }
    for routes in services.all() {
        let (served, not_yet) = split(routes);
        let _ = write!(page, "\n## {}\n\nServed: {}.\n", routes.service.full_name, list(&served));
        if !not_yet.is_empty() {
            let _ = write!(page, "\nNot served yet: {}.\n", list(&not_yet));
        }
    }
    page
}

/// The operations with shapes: those with a handler, and the others.
fn split(routes: &Routes) -> (Vec<&'static str>, Vec<&'static str>) {
    routes.service.operations.iter().map(|operation| operation.name).partition(|name| routes.serves(name))
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
