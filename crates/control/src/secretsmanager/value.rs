//! The values of secrets, each a version with its stages. Follows
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html>.

use super::{change, in_use, invalid, missing, not_now, sealing};
use crate::api::Call;
use crate::context::{Context, RandomIds};
use crate::refuse::{Given as _, unsupported};
use longshore_model::id::IdSource as _;
use longshore_model::secret::{Secret, SecretVersion};
use longshore_secretsmanager as secretsmanager;
use longshore_wire::{Fault, Timestamp};
use std::collections::BTreeSet;

pub const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";
/// Versions that are kept when they have no stage any more.
const MOST_VERSIONS: usize = 100;
const MOST_BYTES: usize = 65_536;

/// A value as requests give it.
pub struct Given {
    pub token: Option<String>,
    pub text: Option<String>,
    pub bytes: Option<Vec<u8>>,
    pub stages: Option<Vec<String>>,
}

impl Given {
    /// The bytes, and whether they are no text; nothing where no value is given.
    fn content(&self) -> Result<Option<(&[u8], bool)>, Fault> {
        let found = match (&self.text, &self.bytes) {
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "You can't specify both a binary secret value and a string secret value in the same secret.",
                ));
            }
            (Some(text), None) => (text.as_bytes(), false),
            (None, Some(bytes)) => (bytes.as_slice(), true),
            (None, None) => return Ok(None),
        };
        if found.0.len() > MOST_BYTES {
            return Err(invalid(format!("A secret value can have at most {MOST_BYTES} bytes.")));
        }
        Ok(Some(found))
    }
}

/// Adds a version of a value to a secret; repeating it with the same token adds none. Nothing where no value is given.
pub fn add(context: &Context, secret: &mut Secret, given: &Given) -> Result<Option<String>, Fault> {
    let Some((content, is_binary)) = given.content()? else { return Ok(None) };
    let id = given.token.clone().unwrap_or_else(|| RandomIds.uuid().to_string());
    if let Some(present) = secret.versions.iter().find(|version| version.id == id) {
        if is_binary == present.is_binary && open(context, secret, present)? == content {
            return Ok(Some(id));
        }
        let message = format!(
            "You can't use ClientRequestToken {id} because that value is already in use for a version of secret {}.",
            secret.arn()
        );
        return Err(secretsmanager::Error::ResourceExistsException(message).into());
    }
    let value = context.vault.seal(&name_of(secret, &id), content).map_err(sealing)?;
    let stages = given.stages.clone().unwrap_or_else(|| vec![CURRENT.to_owned()]);
    secret.versions.push(SecretVersion {
        id: id.clone(),
        value,
        is_binary,
        stages: BTreeSet::new(),
        created_at: context.now(),
    });
    for stage in &stages {
        move_stage(secret, stage, Some(&id));
    }
    secret.changed_at = context.now();
    let unused = secret.versions.iter().position(|version| version.stages.is_empty());
    if let Some(oldest) = unused.filter(|_| secret.versions.len() > MOST_VERSIONS) {
        secret.versions.remove(oldest);
    }
    Ok(Some(id))
}

/// A stage is on one version at most, and the version that was current is the previous one then.
pub fn move_stage(secret: &mut Secret, stage: &str, to: Option<&str>) {
    let holder = secret.versions.iter().find(|version| version.stages.contains(stage));
    let holder = holder.map(|version| version.id.clone());
    if holder.as_deref() == to {
        return;
    }
    for version in &mut secret.versions {
        version.stages.remove(stage);
        if Some(version.id.as_str()) == to {
            version.stages.insert(stage.to_owned());
        }
    }
    if stage == CURRENT {
        for version in &mut secret.versions {
            version.stages.remove(PREVIOUS);
            if Some(&version.id) == holder.as_ref() {
                version.stages.insert(PREVIOUS.to_owned());
            }
        }
    }
}

/// What a version is sealed as.
fn name_of(secret: &Secret, version: &str) -> String {
    format!("{}/{version}", secret.arn())
}

pub fn open(context: &Context, secret: &Secret, version: &SecretVersion) -> Result<Vec<u8>, Fault> {
    context.vault.open(&name_of(secret, &version.id), &version.value).map_err(sealing)
}

/// The version of an id, of a stage, or of both; the current one where neither is said.
pub fn find_version<'a>(
    secret: &'a Secret,
    id: Option<&str>,
    stage: Option<&str>,
) -> Result<&'a SecretVersion, Fault> {
    let stage = stage.or(if id.is_none() { Some(CURRENT) } else { None });
    let fits = |version: &&SecretVersion| {
        id.is_none_or(|id| version.id == id) && stage.is_none_or(|stage| version.stages.contains(stage))
    };
    secret.versions.iter().find(fits).ok_or_else(|| {
        let what = match (id, stage) {
            (Some(id), _) => format!("VersionId: {id}"),
            (None, stage) => format!("staging label: {}", stage.unwrap_or(CURRENT)),
        };
        missing(format!("Secrets Manager can't find the specified secret value for {what}"))
    })
}

pub async fn put(
    call: Call,
    request: secretsmanager::PutSecretValueRequest,
) -> Result<secretsmanager::PutSecretValueResponse, Fault> {
    let secretsmanager::PutSecretValueRequest {
        secret_id,
        client_request_token: token,
        secret_binary: bytes,
        secret_string: text,
        version_stages: stages,
        rotation_token,
    } = request;
    unsupported(&[("RotationToken", rotation_token.given())]).map_err(invalid)?;
    let given = Given { token, text, bytes, stages: stages.filter(|stages| !stages.is_empty()) };
    let (secret, id) = change(&call, &secret_id, |secret| {
        let id = add(&call.context, secret, &given)?;
        id.ok_or_else(|| not_now("You must provide either SecretString or SecretBinary."))
    })
    .await?;
    let version = secret.versions.iter().find(|version| version.id == id);
    Ok(secretsmanager::PutSecretValueResponse {
        arn: Some(secret.arn()),
        name: Some(secret.name.clone()),
        version_stages: version.map(|version| version.stages.iter().cloned().collect()),
        version_id: Some(id),
    })
}

pub async fn get(
    call: Call,
    request: secretsmanager::GetSecretValueRequest,
) -> Result<secretsmanager::GetSecretValueResponse, Fault> {
    let secretsmanager::GetSecretValueRequest { secret_id, version_id, version_stage } = request;
    let view = call.context.view();
    let secret = in_use(&view, call.scope(), &secret_id)?;
    let version = find_version(secret, version_id.as_deref(), version_stage.as_deref())?;
    let content = open(&call.context, secret, version)?;
    let (text, bytes) = match version.is_binary {
        true => (None, Some(content)),
        false => (String::from_utf8(content).ok(), None),
    };
    Ok(secretsmanager::GetSecretValueResponse {
        arn: Some(secret.arn()),
        name: Some(secret.name.clone()),
        version_id: Some(version.id.clone()),
        secret_binary: bytes,
        secret_string: text,
        version_stages: Some(version.stages.iter().cloned().collect()),
        created_date: Some(Timestamp(version.created_at.millis())),
    })
}
