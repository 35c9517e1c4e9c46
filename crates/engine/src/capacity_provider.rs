//! Which capacity provider a task is given to. Invariant: bases come first; beyond them each provider's part of the tasks
//! comes as near to its weight as whole tasks allow.

use longshore_model::capacity_provider::StrategyItem;
use std::collections::BTreeMap;

/// How many tasks each provider has.
pub type Counts<'a> = BTreeMap<&'a str, u32>;

/// The provider of the next task beside those that are counted; `None` when no provider of the strategy takes any.
pub fn next<'a>(strategy: &'a [StrategyItem], counts: &Counts<'_>) -> Option<&'a str> {
    let count =
        |item: &StrategyItem| counts.get(item.capacity_provider.as_str()).copied().unwrap_or_default();
    let name = |item: &'a StrategyItem| item.capacity_provider.as_str();
    if let Some(item) = strategy.iter().find(|item| count(item) < item.base) {
        return Some(name(item));
    }
    // a/b < c/d as a·d < c·b; of equals the first one is taken.
    let beyond = |item: &StrategyItem| u64::from(count(item).saturating_sub(item.base));
    let weighted = strategy.iter().filter(|item| item.weight > 0);
    let least =
        weighted.min_by(|a, b| (beyond(a) * u64::from(b.weight)).cmp(&(beyond(b) * u64::from(a.weight))));
    least.map(name)
}

/// The providers of `more` tasks beside those that are counted, in order.
pub fn split<'a>(strategy: &'a [StrategyItem], mut counts: Counts<'a>, more: usize) -> Vec<&'a str> {
    let mut given = Vec::with_capacity(more);
    while given.len() < more {
        let Some(name) = next(strategy, &counts) else { break };
        *counts.entry(name).or_default() += 1;
        given.push(name);
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(name: &str, base: u32, weight: u32) -> StrategyItem {
        StrategyItem { capacity_provider: name.to_owned(), base, weight }
    }

    fn check(strategy: &[StrategyItem], tasks: usize) -> Vec<usize> {
        let given = split(strategy, Counts::new(), tasks);
        strategy
            .iter()
            .map(|item| given.iter().filter(|name| **name == item.capacity_provider).count())
            .collect()
    }

    #[test]
    fn bases_and_weights() {
        let spot = [item("FARGATE_SPOT", 0, 70), item("FARGATE", 2, 30)];
        assert_eq!(check(&spot, 1), [0, 1]);
        assert_eq!(check(&spot, 2), [0, 2]);
        assert_eq!(check(&spot, 5), [2, 3]);
        assert_eq!(check(&spot, 102), [70, 32]);
        assert_eq!(check(&[item("FARGATE", 0, 1), item("FARGATE_SPOT", 0, 1)], 3), [2, 1]);
        assert_eq!(check(&[item("FARGATE", 1, 0), item("FARGATE_SPOT", 0, 0)], 3), [1, 0]);
        assert_eq!(check(&[item("FARGATE", 0, 0), item("FARGATE_SPOT", 0, 1)], 3), [0, 3]);
        assert_eq!(check(&[], 3), [0; 0]);
    }

    proptest! {
        #[test]
        fn no_provider_is_a_whole_task_off(weights in prop::collection::vec(1..1000_u32, 1..5), tasks in 0..500_usize) {
            let strategy: Vec<_> = weights.iter().enumerate().map(|(n, w)| item(&n.to_string(), 0, *w)).collect();
            let given = check(&strategy, tasks);
            let total: u32 = weights.iter().sum();
            prop_assert_eq!(given.iter().sum::<usize>(), tasks);
            for (count, weight) in given.iter().zip(&weights) {
                let exact = tasks as f64 * f64::from(*weight) / f64::from(total);
                prop_assert!((*count as f64 - exact).abs() <= weights.len() as f64, "{} for {}", count, exact);
            }
        }

        #[test]
        fn tasks_given_one_by_one_are_split_as_those_given_at_once(base in 0..5_u32, tasks in 0..40_usize) {
            let strategy = [item("FARGATE_SPOT", 0, 3), item("FARGATE", base, 1)];
            let at_once = split(&strategy, Counts::new(), tasks);
            let mut counts = Counts::new();
            for expected in at_once {
                let name = next(&strategy, &counts).unwrap();
                prop_assert_eq!(name, expected);
                *counts.entry(name).or_default() += 1;
            }
        }
    }
}
