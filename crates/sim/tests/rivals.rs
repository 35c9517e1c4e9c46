//! Two control planes at once, with fixed seeds.

use longshore_sim::large::Failed;
use longshore_sim::rivals::run;

#[test]
fn two_control_planes_do_nothing_twice() -> Result<(), Failed> {
    let (mut carried_out, mut refused) = (0, 0);
    for seed in 1..=200 {
        let report = run(seed).map_err(|error| format!("seed {seed}: {error}"))?;
        carried_out += report.carried_out;
        refused += report.refused;
    }
    assert!(carried_out > 2000, "{carried_out} plans were carried out");
    assert!(refused > 200, "{refused} plans met a rival's: others would prove little");
    Ok(())
}
