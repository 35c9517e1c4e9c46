//! Placement constraints and strategies, as users write them and as describe calls show them.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement.html>.

use super::{client, invalid};
use longshore_ecs as ecs;
use longshore_engine::query::Expression;
use longshore_model::placement::{BinpackField, PlacementConstraint, PlacementStrategy, SpreadField};

/// The most constraints of a task, those of its definition and those of the request together.
const CONSTRAINTS: usize = 10;
/// The most strategies of a request.
const STRATEGIES: usize = 5;

pub fn constraints(
    given: Option<Vec<ecs::PlacementConstraint>>,
) -> Result<Vec<PlacementConstraint>, ecs::Error> {
    let given = given.unwrap_or_default();
    if given.len() > CONSTRAINTS {
        return Err(invalid(format!("placementConstraints can have at most {CONSTRAINTS} items.")));
    }
    given.into_iter().map(constraint).collect()
}

fn constraint(given: ecs::PlacementConstraint) -> Result<PlacementConstraint, ecs::Error> {
    let ecs::PlacementConstraint { r#type, expression } = given;
    let expression = expression.filter(|expression| !expression.is_empty());
    match (r#type, expression) {
        (Some(ecs::PlacementConstraintType::DistinctInstance), None) => {
            Ok(PlacementConstraint::DistinctInstance)
        }
        (Some(ecs::PlacementConstraintType::DistinctInstance), Some(_)) => {
            Err(invalid("A placement constraint of type distinctInstance has no expression."))
        }
        (Some(ecs::PlacementConstraintType::MemberOf), Some(expression)) => member_of(expression),
        (Some(ecs::PlacementConstraintType::MemberOf), None) => {
            Err(invalid("A placement constraint of type memberOf needs an expression."))
        }
        (None, _) => Err(invalid("A placement constraint needs a type: distinctInstance or memberOf.")),
    }
}

/// A constraint of a task definition, which knows memberOf only.
pub fn of_definition(
    given: ecs::TaskDefinitionPlacementConstraint,
) -> Result<PlacementConstraint, ecs::Error> {
    let ecs::TaskDefinitionPlacementConstraint { r#type, expression } = given;
    match (r#type, expression.filter(|expression| !expression.is_empty())) {
        (Some(ecs::TaskDefinitionPlacementConstraintType::MemberOf), Some(expression)) => {
            member_of(expression)
        }
        (_, _) => Err(client(
            "A placement constraint of a task definition is of type memberOf and has an expression; distinctInstance is \
             not supported here.",
        )),
    }
}

fn member_of(expression: String) -> Result<PlacementConstraint, ecs::Error> {
    query(&expression)?;
    Ok(PlacementConstraint::MemberOf(expression))
}

/// An expression of the cluster query language.
pub fn query(expression: &str) -> Result<Expression, ecs::Error> {
    let wrong = |error| invalid(format!("The expression '{expression}' is not valid: {error}."));
    Expression::parse(expression).map_err(wrong)
}

pub fn strategies(given: Option<Vec<ecs::PlacementStrategy>>) -> Result<Vec<PlacementStrategy>, ecs::Error> {
    let given = given.unwrap_or_default();
    if given.len() > STRATEGIES {
        return Err(invalid(format!("placementStrategy can have at most {STRATEGIES} items.")));
    }
    given.into_iter().map(strategy).collect()
}

fn strategy(given: ecs::PlacementStrategy) -> Result<PlacementStrategy, ecs::Error> {
    let ecs::PlacementStrategy { r#type, field } = given;
    let field = field.unwrap_or_default();
    match r#type {
        Some(ecs::PlacementStrategyType::Random) if field.is_empty() => Ok(PlacementStrategy::Random),
        Some(ecs::PlacementStrategyType::Random) => {
            Err(invalid("A placement strategy of type random has no field."))
        }
        Some(ecs::PlacementStrategyType::Spread) => {
            let attribute = field.strip_prefix("attribute:").filter(|name| !name.is_empty());
            match (field.to_ascii_lowercase().as_str(), attribute) {
                ("instanceid" | "host", _) => Ok(PlacementStrategy::Spread(SpreadField::Instance)),
                (_, Some(name)) => Ok(PlacementStrategy::Spread(SpreadField::Attribute(name.to_owned()))),
                (_, None) => Err(invalid(format!(
                    "The field of a spread is instanceId, host or attribute:NAME, and is '{field}'."
                ))),
            }
        }
        Some(ecs::PlacementStrategyType::Binpack) => match field.to_ascii_lowercase().as_str() {
            "cpu" => Ok(PlacementStrategy::Binpack(BinpackField::Cpu)),
            "memory" => Ok(PlacementStrategy::Binpack(BinpackField::Memory)),
            _ => Err(invalid(format!("The field of a binpack is cpu or memory, and is '{field}'."))),
        },
        None => Err(invalid("A placement strategy needs a type: random, spread or binpack.")),
    }
}

pub fn render_of_definition(constraint: &PlacementConstraint) -> ecs::TaskDefinitionPlacementConstraint {
    let expression = match constraint {
        PlacementConstraint::DistinctInstance => None,
        PlacementConstraint::MemberOf(expression) => Some(expression.clone()),
    };
    ecs::TaskDefinitionPlacementConstraint {
        r#type: Some(ecs::TaskDefinitionPlacementConstraintType::MemberOf),
        expression,
    }
}

pub fn render_constraint(constraint: &PlacementConstraint) -> ecs::PlacementConstraint {
    let (r#type, expression) = match constraint {
        PlacementConstraint::DistinctInstance => (ecs::PlacementConstraintType::DistinctInstance, None),
        PlacementConstraint::MemberOf(expression) => {
            (ecs::PlacementConstraintType::MemberOf, Some(expression.clone()))
        }
    };
    ecs::PlacementConstraint { r#type: Some(r#type), expression }
}

pub fn render_strategy(strategy: &PlacementStrategy) -> ecs::PlacementStrategy {
    let (r#type, field) = match strategy {
        PlacementStrategy::Random => (ecs::PlacementStrategyType::Random, None),
        PlacementStrategy::Spread(SpreadField::Instance) => {
            (ecs::PlacementStrategyType::Spread, Some("instanceId".to_owned()))
        }
        PlacementStrategy::Spread(SpreadField::Attribute(name)) => {
            (ecs::PlacementStrategyType::Spread, Some(format!("attribute:{name}")))
        }
        // AWS shows these in upper case.
        PlacementStrategy::Binpack(BinpackField::Cpu) => {
            (ecs::PlacementStrategyType::Binpack, Some("CPU".to_owned()))
        }
        PlacementStrategy::Binpack(BinpackField::Memory) => {
            (ecs::PlacementStrategyType::Binpack, Some("MEMORY".to_owned()))
        }
    };
    ecs::PlacementStrategy { r#type: Some(r#type), field }
}
