//! Filters of list calls: one value with EQ, some with IN, the beginning of one with BEGINS_WITH, two ends with BETWEEN.

use super::invalid;
use longshore_servicediscovery as sd;
use longshore_wire::Fault;

use sd::FilterCondition as Condition;

/// One filter, which knows what it is compared with.
pub struct Filter {
    condition: Condition,
    values: Vec<String>,
}

impl Filter {
    /// `allowed` are the conditions that the filter of this name takes, besides EQ.
    pub fn parse(
        name: &str,
        condition: Option<Condition>,
        values: Vec<String>,
        allowed: &[Condition],
    ) -> Result<Self, Fault> {
        let condition = condition
            .unwrap_or(allowed.first().copied().filter(|_| is_range(allowed)).unwrap_or(Condition::Eq));
        let is_allowed = allowed.contains(&condition) || condition == Condition::Eq && !is_range(allowed);
        if !is_allowed {
            return Err(invalid(format!(
                "The condition {condition:?} is not supported for the filter {name}."
            )));
        }
        let fits = match condition {
            Condition::Eq | Condition::BeginsWith => values.len() == 1,
            Condition::Between => values.len() == 2,
            Condition::In => !values.is_empty(),
        };
        if !fits {
            return Err(invalid(format!(
                "The number of values of the filter {name} does not fit its condition."
            )));
        }
        Ok(Self { condition, values })
    }

    pub fn passes(&self, value: &str) -> bool {
        match self.condition {
            Condition::Eq | Condition::In => self.values.iter().any(|wanted| wanted == value),
            Condition::BeginsWith => self.values.iter().any(|start| value.starts_with(start)),
            Condition::Between => false,
        }
    }

    /// The two ends, in seconds, of a filter by time.
    pub fn range(&self, name: &str) -> Result<(f64, f64), Fault> {
        let number = |text: &String| text.parse::<f64>().ok().filter(|number| number.is_finite());
        match self.values.as_slice() {
            [from, to] => number(from).zip(number(to)),
            _ => None,
        }
        .ok_or_else(|| invalid(format!("The values of the filter {name} must be Unix times.")))
    }

    /// RESOURCE_OWNER: everything here is one's own.
    pub fn passes_own(&self) -> bool {
        self.passes("SELF")
    }
}

fn is_range(allowed: &[Condition]) -> bool {
    allowed == [Condition::Between]
}
