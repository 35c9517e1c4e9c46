//! The certificates of control planes and agents. Invariant: whose certificate names an instance has the key that the
//! instance's agent made, and the key never left its machine.

use super::{CONTROL_NAME, agent_name};
use crate::Outcome;
use longshore_model::join::Authority;
use longshore_model::{ContainerInstanceId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::time::Duration;

const DAY: i64 = 24 * 60 * 60 * 1000;
/// How long certificates are valid, and how much of that is left when an agent asks for a new one.
const AUTHORITY_DAYS: i64 = 3650;
const CERTIFICATE_DAYS: i64 = 90;
pub const RENEW_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A new authority.
pub fn make(now: Timestamp) -> Outcome<Authority> {
    let key = KeyPair::generate()?;
    let certificate = params(now)?.self_signed(&key)?;
    Ok(Authority { certificate: certificate.pem(), key: key.serialize_pem(), made_at: now })
}

/// The certificate of a control plane that makes its key now: the chain and the key.
pub fn of_control(
    authority: &Authority,
    now: Timestamp,
) -> Outcome<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let key = KeyPair::generate()?;
    let mut params = leaf(CONTROL_NAME.to_owned(), now)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer(authority)?)?;
    let chain =
        vec![certificate.der().clone(), CertificateDer::from_pem_slice(authority.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
    Ok((chain, key))
}

/// A certificate, in PEM, for the key of an instance's agent.
pub fn of_agent(
    authority: &Authority,
    instance: ContainerInstanceId,
    public_key: &[u8],
    now: Timestamp,
) -> Outcome<String> {
    // An uncompressed point of P-256.
    if public_key.len() != 65 || public_key.first() != Some(&4) {
        return Err("the agent's public key is not one of P-256".into());
    }
    let mut params = leaf(agent_name(instance), now)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params.signed_by(&PublicKey(public_key), &issuer(authority)?)?.pem())
}

/// SHA-256 of a certificate, in hexadecimal digits: by it an agent knows the authority before it has anything else.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The fingerprint of an authority.
pub fn fingerprint_of(authority: &Authority) -> Outcome<String> {
    Ok(fingerprint(&CertificateDer::from_pem_slice(authority.certificate.as_bytes())?))
}

struct PublicKey<'a>(&'a [u8]);

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// The authority as a signer: its certificate's parameters are the same whenever they are made.
fn issuer(authority: &Authority) -> Outcome<Issuer<'static, KeyPair>> {
    Ok(Issuer::new(params(authority.made_at)?, KeyPair::from_pem(&authority.key)?))
}

fn params(made_at: Timestamp) -> Outcome<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named("Longshore agents");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, made_at, AUTHORITY_DAYS)?;
    Ok(params)
}

fn leaf(name: String, now: Timestamp) -> Outcome<CertificateParams> {
    let mut params = CertificateParams::new(vec![name.clone()])?;
    params.distinguished_name = named(&name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now, CERTIFICATE_DAYS)?;
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    // A common name has at most 64 characters.
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

/// From a day before, for machines whose clocks are late.
fn valid(params: &mut CertificateParams, from: Timestamp, days: i64) -> Outcome {
    let at = |millis: i64| time::OffsetDateTime::from_unix_timestamp(millis / 1000);
    params.not_before = at(from.plus_millis(-DAY).millis())?;
    params.not_after = at(from.plus_millis(days * DAY).millis())?;
    Ok(())
}
