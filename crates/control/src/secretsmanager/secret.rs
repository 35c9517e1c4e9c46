//! Secrets as they are made, described and changed. Follows
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>.

use super::value::{self, Given};
use super::{change, invalid, named, not_now, sealing, stages, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::refuse::{Given as _, unsupported};
use longshore_model::id::IdSource as _;
use longshore_model::secret::Secret;
use longshore_model::{Record as _, Tags};
use longshore_secretsmanager as secretsmanager;
use longshore_wire::{Fault, Timestamp};

crate::given_when_present!(secretsmanager::ReplicaRegionType);

const MOST: usize = 500_000;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

pub async fn create(
    call: Call,
    request: secretsmanager::CreateSecretRequest,
) -> Result<secretsmanager::CreateSecretResponse, Fault> {
    let secretsmanager::CreateSecretRequest {
        name,
        client_request_token: token,
        description,
        kms_key_id,
        secret_binary: bytes,
        secret_string: text,
        tags,
        add_replica_regions,
        force_overwrite_replica_secret,
        r#type,
    } = request;
    unsupported(&[
        ("AddReplicaRegions", add_replica_regions.given()),
        ("ForceOverwriteReplicaSecret", force_overwrite_replica_secret.given()),
        ("Type", r#type.given()),
    ])
    .map_err(invalid)?;
    check_name(&name)?;
    let now = call.context.now();
    let made = Secret {
        scope: call.scope().clone(),
        name,
        suffix: suffix(),
        description: description.filter(|text| !text.is_empty()),
        kms_key_id: kms_key_id.filter(|id| !id.is_empty()),
        tags: tag::with(&Tags::default(), tags.unwrap_or_default())?,
        versions: Vec::new(),
        policy: None,
        created_at: now,
        changed_at: now,
        deleted: None,
    };
    let given = Given { token, text, bytes, stages: None };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        if let Some(present) = view.secrets.get(&made.key()) {
            return repeated(&call, present, &given);
        }
        if view.secrets.of(call.scope()).nth(MOST - 1).is_some() {
            let message = format!("You have reached the maximum number of secrets: {MOST}.");
            return Err(secretsmanager::Error::LimitExceededException(message).into());
        }
        let mut secret = made.clone();
        let version = value::add(&call.context, &mut secret, &given)?;
        call.context.vault.claim(view, transaction).map_err(sealing)?;
        transaction.create(&secret);
        Ok((secret, version))
    });
    let (secret, version_id) = commit.await?;
    Ok(secretsmanager::CreateSecretResponse {
        arn: Some(secret.arn()),
        name: Some(secret.name),
        version_id,
        replication_status: None,
    })
}

/// A request that was made before answers as it did then.
fn repeated(call: &Call, present: &Secret, given: &Given) -> Result<(Secret, Option<String>), Fault> {
    if present.deleted.is_some() {
        return Err(not_now(
            "You can't create this secret because a secret with this name is already scheduled for deletion.",
        ));
    }
    let is_known = |token: &&String| present.versions.iter().any(|version| version.id == **token);
    if given.token.as_ref().filter(is_known).is_some() {
        let mut same = present.clone();
        let version = value::add(&call.context, &mut same, given)?;
        return Ok((same, version));
    }
    let message = format!("The operation failed because the secret {} already exists.", present.name);
    Err(secretsmanager::Error::ResourceExistsException(message).into())
}

fn check_name(name: &str) -> Result<(), Fault> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    match !name.is_empty() && name.len() <= 512 && name.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(invalid(
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!",
        )),
    }
}

fn suffix() -> String {
    let number = RandomIds.next_u128();
    let letter = |place: u32| {
        let at = (number >> (16 * place)) % ALPHABET.len() as u128;
        usize::try_from(at).ok().and_then(|at| ALPHABET.get(at)).copied().map_or('A', char::from)
    };
    (0..6).map(letter).collect()
}

pub async fn describe(
    call: Call,
    request: secretsmanager::DescribeSecretRequest,
) -> Result<secretsmanager::DescribeSecretResponse, Fault> {
    let secretsmanager::DescribeSecretRequest { secret_id } = request;
    let view = call.context.view();
    let secret = named(&view, call.scope(), &secret_id)?;
    let time = |at: longshore_model::Timestamp| Some(Timestamp(at.millis()));
    Ok(secretsmanager::DescribeSecretResponse {
        arn: Some(secret.arn()),
        name: Some(secret.name.clone()),
        description: secret.description.clone(),
        kms_key_id: secret.kms_key_id.clone(),
        last_changed_date: time(secret.changed_at),
        deleted_date: secret.deleted.and_then(|deleted| time(deleted.marked_at)),
        tags: Some(tag::render(&secret.tags)),
        version_ids_to_stages: Some(stages(secret)).filter(|stages| !stages.is_empty()),
        created_date: time(secret.created_at),
        ..secretsmanager::DescribeSecretResponse::default()
    })
}

pub async fn update(
    call: Call,
    request: secretsmanager::UpdateSecretRequest,
) -> Result<secretsmanager::UpdateSecretResponse, Fault> {
    let secretsmanager::UpdateSecretRequest {
        secret_id,
        client_request_token: token,
        description,
        kms_key_id,
        secret_binary: bytes,
        secret_string: text,
        r#type,
    } = request;
    unsupported(&[("Type", r#type.given())]).map_err(invalid)?;
    let given = Given { token, text, bytes, stages: None };
    let now = call.context.now();
    let (secret, version_id) = change(&call, &secret_id, |secret| {
        if let Some(description) = &description {
            secret.description = Some(description.clone()).filter(|text| !text.is_empty());
            secret.changed_at = now;
        }
        if let Some(key) = &kms_key_id {
            secret.kms_key_id = Some(key.clone()).filter(|id| !id.is_empty());
            secret.changed_at = now;
        }
        value::add(&call.context, secret, &given)
    })
    .await?;
    Ok(secretsmanager::UpdateSecretResponse { arn: Some(secret.arn()), name: Some(secret.name), version_id })
}
