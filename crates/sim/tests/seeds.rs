//! Histories by seed. `SIM_SEED=N` runs one, `SIM_SEEDS=N` runs more of the small ones.

use longshore_sim::{Scenario, run};

const SMALL: Scenario = Scenario { instances: 4, calls: 40, faults: 6 };
const LARGE: Scenario = Scenario { instances: 200, calls: 300, faults: 120 };

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn small_clusters_of_many_seeds() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(200),
    };
    let (mut tasks, mut conflicts) = (0, 0);
    for seed in seeds.clone() {
        let report = run(seed, SMALL).unwrap_or_else(|violation| panic!("{violation}"));
        tasks += report.tasks;
        conflicts += report.conflicts;
    }
    // A simulation in which nothing happens or nothing races proves nothing.
    assert!(tasks > 0 && (conflicts > 0 || seeds.count() < 10), "{tasks} tasks, {conflicts} conflicts");
}

#[test]
fn two_hundred_instances() {
    let report =
        run(number("SIM_SEED").unwrap_or(1), LARGE).unwrap_or_else(|violation| panic!("{violation}"));
    assert!(report.tasks > 500, "{report:?}");
}

#[test]
fn a_seed_is_a_history() {
    assert_eq!(run(7, SMALL), run(7, SMALL));
    assert_ne!(run(7, SMALL), run(8, SMALL));
}
