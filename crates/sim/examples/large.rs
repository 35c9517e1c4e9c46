//! The large scenario, 5,000 services with 1,000,000 tasks on 10,000 instances; prints what it took as JSON.
//!
//! `cargo run --release -p longshore-sim --example large`

use longshore_sim::large::{Failed, Size, run};

const SIZE: Size = Size { instances: 10_000, services: 5_000, tasks: 200, large: 5_000 };

fn main() -> Result<(), Failed> {
    let report = run(SIZE)?;
    let seconds = [
        ("start", report.start),
        ("look", report.look),
        ("deployment", report.deployment),
        ("zone_lost", report.zone_lost),
        ("zone_back", report.zone_back),
    ];
    let seconds = seconds.map(|(what, took)| format!("\"{what}_seconds\": {:.3}", took.as_secs_f64()));
    println!(
        "{{\"tasks\": {}, \"lost\": {}, \"placement_median_us\": {:.1}, \"placement_p99_us\": {:.1}, \
         \"resident_of_task\": {:.0}, {}}}",
        report.tasks,
        report.lost,
        report.placement_median,
        report.placement_p99,
        report.resident_of_task,
        seconds.join(", ")
    );
    Ok(())
}
