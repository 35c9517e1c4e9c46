//! AWS Secrets Manager.

mod deletion;
mod list;
mod policy;
mod secret;
mod stage;
mod tag;
mod value;

use crate::api::{Call, Routes};
use crate::vault;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::arn::Arn;
use longshore_model::secret::{Secret, SecretVersion};
use longshore_secretsmanager as secretsmanager;
use longshore_secretsmanager::operations as op;
use longshore_wire::Fault;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use value::{CURRENT, find_version, open};

pub fn routes() -> Routes {
    Routes::new(&secretsmanager::SERVICE)
        .on::<op::CreateSecret, _, _, _>(secret::create)
        .on::<op::DescribeSecret, _, _, _>(secret::describe)
        .on::<op::UpdateSecret, _, _, _>(secret::update)
        .on::<op::GetSecretValue, _, _, _>(value::get)
        .on::<op::PutSecretValue, _, _, _>(value::put)
        .on::<op::UpdateSecretVersionStage, _, _, _>(stage::update)
        .on::<op::ListSecrets, _, _, _>(list::secrets)
        .on::<op::ListSecretVersionIds, _, _, _>(list::versions)
        .on::<op::DeleteSecret, _, _, _>(deletion::delete)
        .on::<op::RestoreSecret, _, _, _>(deletion::restore)
        .on::<op::GetResourcePolicy, _, _, _>(policy::get)
        .on::<op::TagResource, _, _, _>(tag::add)
        .on::<op::UntagResource, _, _, _>(tag::remove)
}

/// The secret of a name, or of an ARN, whose suffix may be left out.
pub fn find<'a>(view: &'a View, scope: &Scope, id: &str) -> Option<&'a Arc<Secret>> {
    let Some(arn) = Arn::parse(id) else {
        return view.secrets.get(&Secret::key_of(scope, id));
    };
    let name = arn.resource.strip_prefix("secret:").filter(|_| arn.service == "secretsmanager")?;
    let named = |name: &str| view.secrets.get(&Secret::key_of(scope, name));
    let whole = name.len().checked_sub(7).and_then(|end| name.get(..end)).and_then(named);
    let whole = whole.filter(|secret| secret.arn() == id);
    whole.or_else(|| named(name).filter(|secret| secret.arn().starts_with(id)))
}

fn named<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<&'a Arc<Secret>, Fault> {
    find(view, scope, id).ok_or_else(|| missing("Secrets Manager can't find the specified secret."))
}

/// One that is not marked for deletion.
fn in_use<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<&'a Arc<Secret>, Fault> {
    let secret = named(view, scope, id)?;
    match secret.deleted {
        None => Ok(secret),
        Some(_) => {
            Err(not_now("You can't perform this operation on the secret because it was marked for deletion."))
        }
    }
}

fn missing(message: impl Into<String>) -> Fault {
    secretsmanager::Error::ResourceNotFoundException(message.into()).into()
}

fn invalid(message: impl Into<String>) -> Fault {
    secretsmanager::Error::InvalidParameterException(message.into()).into()
}

/// For what the secret's state does not allow.
fn not_now(message: impl Into<String>) -> Fault {
    secretsmanager::Error::InvalidRequestException(message.into()).into()
}

fn sealing(error: vault::Error) -> Fault {
    tracing::error!(%error, "a secret cannot be sealed or opened");
    match error {
        vault::Error::NotSealed => secretsmanager::Error::EncryptionFailure(error.to_string()).into(),
        vault::Error::NotAKey | vault::Error::OtherKey | vault::Error::Damaged => {
            secretsmanager::Error::DecryptionFailure(format!("{error}.")).into()
        }
    }
}

/// The versions that have stages, with them.
fn stages(secret: &Secret) -> BTreeMap<String, Vec<String>> {
    let staged = secret.versions.iter().filter(|version| !version.stages.is_empty());
    staged
        .map(|version: &SecretVersion| (version.id.clone(), version.stages.iter().cloned().collect()))
        .collect()
}

/// Changes a secret that is in use; says what the change came to.
async fn change<T>(
    call: &Call,
    id: &str,
    change: impl Fn(&mut Secret) -> Result<T, Fault>,
) -> Result<(Secret, T), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = in_use(&snapshot.view, call.scope(), id)?;
        let mut next = Secret::clone(present);
        let result = change(&mut next)?;
        if next != **present {
            call.context.vault.claim(&snapshot.view, transaction).map_err(sealing)?;
            transaction.update(&next);
        }
        Ok((next, result))
    });
    commit.await
}
