//! Reads certificates. Invariant: what is let in is one certificate that is valid now, with its own key, and that it vouches
//! for itself or its chain does.

use super::invalid;
use longshore_model::Timestamp;
use longshore_model::certificate::Details;
use longshore_wire::Fault;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Name;

pub fn read(body: &[u8], chain: Option<&[u8]>, key: &[u8], now: Timestamp) -> Result<Details, Fault> {
    let certificates = pem(body).ok_or_else(|| invalid("The certificate is not valid PEM."))?;
    let [der] = certificates.as_slice() else {
        return Err(invalid(
            "The certificate field must contain exactly one certificate. Put the others into the chain.",
        ));
    };
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|_| invalid("The certificate is not a valid X.509 certificate."))?;
    check_key(der, key)?;
    let details = details(&certificate)?;
    if now < details.not_before {
        return Err(invalid("The certificate is not valid yet."));
    }
    if now > details.not_after {
        return Err(invalid("The certificate has expired."));
    }
    match chain {
        Some(chain) => check_chain(&certificate, chain)?,
        None => certificate.verify_signature(None).map_err(|_| {
            invalid(
                "Provided certificate is not a valid self signed. Please provide either a valid self-signed certificate \
                 or certificate chain.",
            )
        })?,
    }
    Ok(details)
}

/// `None` for what is no certificate, or has something besides.
fn pem(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().ok()?;
    let begins = text.windows(10).filter(|window| window == b"-----BEGIN").count();
    (begins == certificates.len()).then_some(certificates)
}

fn check_key(certificate: &CertificateDer<'static>, key: &[u8]) -> Result<(), Fault> {
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| invalid("The private key is not valid, or it is encrypted, which is not supported."))?;
    let key = default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_| invalid("The private key is not supported."))?;
    let pair = CertifiedKey::new(vec![certificate.clone()], key);
    pair.keys_match().map_err(|_| invalid("The private key does not match the certificate."))
}

/// Each certificate is signed by the one after it.
fn check_chain(certificate: &X509Certificate<'_>, chain: &[u8]) -> Result<(), Fault> {
    let broken = || invalid("Could not validate the certificate with the certificate chain.");
    let chain = pem(chain).filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| invalid("The certificate chain is not valid PEM."))?;
    let mut signers = Vec::new();
    for der in &chain {
        signers.push(X509Certificate::from_der(der).map_err(|_| broken())?.1);
    }
    let mut signed = certificate;
    for signer in &signers {
        let names_it = signed.issuer() == signer.subject();
        let signs_it = signed.verify_signature(Some(signer.public_key())).is_ok();
        if !names_it || !signs_it {
            return Err(broken());
        }
        signed = signer;
    }
    Ok(())
}

fn details(certificate: &X509Certificate<'_>) -> Result<Details, Fault> {
    let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    let mut names = alternative_names(certificate);
    let domain_name = common.map(str::to_owned).or_else(|| names.first().cloned()).unwrap_or_default();
    if names.is_empty() && !domain_name.is_empty() {
        names.push(domain_name.clone());
    }
    let seconds = |seconds: i64| Timestamp(seconds.saturating_mul(1000));
    let validity = certificate.validity();
    let key_usages = certificate.key_usage().ok().flatten().map(|usage| key_usages(usage.value));
    let extended = certificate.extended_key_usage().ok().flatten().map(|usage| extended_usages(usage.value));
    Ok(Details {
        domain_name,
        names,
        serial: certificate.raw_serial_as_string(),
        subject: certificate.subject().to_string().replace(", ", ","),
        issuer: issuer(certificate.issuer()),
        key_algorithm: key_algorithm(certificate)?.to_owned(),
        signature_algorithm: signature_algorithm(&certificate.signature_algorithm.algorithm.to_id_string()),
        key_usages: key_usages.unwrap_or_default(),
        extended_key_usages: extended.unwrap_or_default(),
        not_before: seconds(validity.not_before.timestamp()),
        not_after: seconds(validity.not_after.timestamp()),
    })
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let found = certificate.subject_alternative_name().ok().flatten();
    let names = found.iter().flat_map(|found| &found.value.general_names);
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}

/// The organization, as ACM shows it, or the whole name where there is none.
fn issuer(name: &X509Name<'_>) -> String {
    let organization = name.iter_organization().find_map(|part| part.as_str().ok());
    let common = name.iter_common_name().find_map(|part| part.as_str().ok());
    organization.or(common).map_or_else(|| name.to_string(), str::to_owned)
}

fn key_algorithm(certificate: &X509Certificate<'_>) -> Result<&'static str, Fault> {
    let unsupported = || invalid("The algorithm of the certificate's key is not supported.");
    match certificate.public_key().parsed().map_err(|_| unsupported())? {
        PublicKey::RSA(key) => match key.key_size() {
            2048 => Ok("RSA_2048"),
            3072 => Ok("RSA_3072"),
            4096 => Ok("RSA_4096"),
            _ => Err(unsupported()),
        },
        PublicKey::EC(point) => match point.key_size() {
            256 => Ok("EC_prime256v1"),
            384 => Ok("EC_secp384r1"),
            _ => Err(unsupported()),
        },
        _ => Err(unsupported()),
    }
}

fn signature_algorithm(identifier: &str) -> String {
    let known = match identifier {
        "1.2.840.113549.1.1.11" => "SHA256WITHRSA",
        "1.2.840.113549.1.1.12" => "SHA384WITHRSA",
        "1.2.840.113549.1.1.13" => "SHA512WITHRSA",
        "1.2.840.10045.4.3.2" => "SHA256WITHECDSA",
        "1.2.840.10045.4.3.3" => "SHA384WITHECDSA",
        "1.2.840.10045.4.3.4" => "SHA512WITHECDSA",
        other => other,
    };
    known.to_owned()
}

fn key_usages(usage: &KeyUsage) -> Vec<String> {
    let all = [
        ("DIGITAL_SIGNATURE", usage.digital_signature()),
        ("NON_REPUDIATION", usage.non_repudiation()),
        ("KEY_ENCIPHERMENT", usage.key_encipherment()),
        ("DATA_ENCIPHERMENT", usage.data_encipherment()),
        ("KEY_AGREEMENT", usage.key_agreement()),
        ("CERTIFICATE_SIGNING", usage.key_cert_sign()),
        ("CRL_SIGNING", usage.crl_sign()),
        ("ENCIPHER_ONLY", usage.encipher_only()),
        ("DECIPHER_ONLY", usage.decipher_only()),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}

fn extended_usages(usage: &ExtendedKeyUsage<'_>) -> Vec<(String, String)> {
    let known = [
        ("ANY", "2.5.29.37.0", usage.any),
        ("TLS_WEB_SERVER_AUTHENTICATION", "1.3.6.1.5.5.7.3.1", usage.server_auth),
        ("TLS_WEB_CLIENT_AUTHENTICATION", "1.3.6.1.5.5.7.3.2", usage.client_auth),
        ("CODE_SIGNING", "1.3.6.1.5.5.7.3.3", usage.code_signing),
        ("EMAIL_PROTECTION", "1.3.6.1.5.5.7.3.4", usage.email_protection),
        ("TIME_STAMPING", "1.3.6.1.5.5.7.3.8", usage.time_stamping),
        ("OCSP_SIGNING", "1.3.6.1.5.5.7.3.9", usage.ocsp_signing),
    ];
    let known =
        known.into_iter().filter(|(_, _, has)| *has).map(|(name, id, _)| (name.to_owned(), id.to_owned()));
    let custom = usage.other.iter().map(|id| ("CUSTOM".to_owned(), id.to_id_string()));
    known.chain(custom).collect()
}
