//! The large scenario on few instances: what holds there at every commit holds at any size.

use longshore_sim::large::{Failed, Size, run};

#[test]
fn services_keep_their_bounds_and_come_to_rest() -> Result<(), Failed> {
    let report = run(Size { instances: 30, services: 12, tasks: 40, large: 300 })?;
    assert_eq!(report.tasks, 11 * 40 + 300);
    assert!(report.lost > 0, "the zone that failed had tasks");
    Ok(())
}
