//! The canonical request, hashed as it is written.

use sha2::{Digest as _, Sha256};

use super::Request;
use crate::protocol::percent_decode;

pub(super) fn hash(request: &Request<'_>, signed_headers: &str, presigned: bool) -> String {
    let mut text = String::with_capacity(512);
    text.push_str(request.method);
    text.push('\n');
    path(&mut text, request.path);
    text.push('\n');
    query(&mut text, request.query, presigned);
    text.push('\n');
    let mut hasher = Sha256::new();
    hasher.update(text.as_bytes());
    for name in signed_headers.split(';') {
        headers(&mut hasher, request, name);
    }
    hasher.update(b"\n");
    hasher.update(signed_headers.as_bytes());
    hasher.update(b"\n");
    // Always over the body itself: a hash that the client only claims would leave the body unsigned.
    hasher.update(hex::encode(Sha256::digest(request.body)).as_bytes());
    hex::encode(hasher.finalize())
}

/// Normalized, then encoded a second time: what came was encoded once already.
fn path(text: &mut String, path: &str) {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    for segment in &segments {
        text.push('/');
        encode(text, segment.as_bytes());
    }
    if segments.is_empty() || path.ends_with('/') {
        text.push('/');
    }
}

fn query(text: &mut String, query: &str, presigned: bool) {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| !(presigned && *name == "X-Amz-Signature"))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort();
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
}

fn headers(hasher: &mut Sha256, request: &Request<'_>, name: &str) {
    hasher.update(name.as_bytes());
    hasher.update(b":");
    let mut first = true;
    for value in request.headers.get_all(name) {
        if !first {
            hasher.update(b",");
        }
        first = false;
        folded(hasher, value.as_bytes());
    }
    if first && name == "host" {
        hasher.update(request.authority.unwrap_or_default().as_bytes());
    }
    hasher.update(b"\n");
}

/// Trimmed, with runs of spaces as one.
fn folded(hasher: &mut Sha256, value: &[u8]) {
    let mut words = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    if let Some(word) = words.next() {
        hasher.update(word);
    }
    for word in words {
        hasher.update(b" ");
        hasher.update(word);
    }
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    encode(&mut encoded, &percent_decode(text));
    encoded
}

fn encode(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(*byte as char),
            byte => {
                text.push('%');
                text.push(DIGITS[usize::from(byte >> 4)] as char);
                text.push(DIGITS[usize::from(byte & 15)] as char);
            }
        }
    }
}
