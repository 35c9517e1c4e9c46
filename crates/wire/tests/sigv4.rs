//! Signatures: AWS's published vectors, requests signed by botocore, and what must be refused.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use http::{HeaderMap, HeaderName, HeaderValue};
use longshore_wire::sigv4::{Presented, Problem, Request, present, verify};
use longshore_wire::{Protocol, Timestamp};

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

#[derive(Clone)]
struct Sent {
    method: String,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Sent {
    fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            authority: None,
            body: &self.body,
        }
    }

    fn present(&self) -> Presented {
        present(&self.request()).expect("a readable signature").expect("a signature")
    }

    fn verify(&self, now: &str) -> Result<(), Problem> {
        let presented = present(&self.request())?.ok_or(Problem::Missing)?;
        let now = Timestamp::parse_basic(now).expect("a time");
        verify(&self.request(), &presented, now, |key, _| (key == KEY).then(|| SECRET.to_owned()))
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        self
    }
}

/// A request of AWS's test suite, by its target, its headers beside host and date, and its signature.
fn suite(method: &str, target: &str, headers: &[(&str, &str)], body: &str, signature: &str) -> Sent {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut map = HeaderMap::new();
    let fixed = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
    for (name, value) in fixed.iter().chain(headers) {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={}, Signature={signature}",
        names.join(";")
    );
    let sent = Sent {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        headers: map,
        body: body.into(),
    };
    sent.header("authorization", &authorization)
}

fn vanilla() -> Sent {
    suite("GET", "/", &[], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")
}

#[test]
fn the_public_vectors_verify() {
    let form = ("content-type", "application/x-www-form-urlencoded");
    let unreserved = "/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let vectors = [
        ("get-vanilla", vanilla()),
        (
            "get-vanilla-query-order-key-case",
            suite(
                "GET",
                "/?Param2=value2&Param1=value1",
                &[],
                "",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
        ),
        (
            "get-vanilla-query-unreserved",
            suite(
                "GET",
                unreserved,
                &[],
                "",
                "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
            ),
        ),
        (
            "get-utf8",
            suite("GET", "/ሴ", &[], "", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        ),
        (
            "get-space",
            suite(
                "GET",
                "/example space/",
                &[],
                "",
                "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
            ),
        ),
        (
            "get-relative-relative",
            suite(
                "GET",
                "/example1/example2/../..",
                &[],
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
        ),
        (
            "get-header-value-trim",
            suite(
                "GET",
                "/",
                &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
                "",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
        ),
        (
            "get-header-key-duplicate",
            suite(
                "GET",
                "/",
                &[("my-header1", "value2"), ("my-header1", "value2"), ("my-header1", "value1")],
                "",
                "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
            ),
        ),
        (
            "post-vanilla",
            suite("POST", "/", &[], "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ),
        (
            "post-x-www-form-urlencoded",
            suite(
                "POST",
                "/",
                &[form],
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ),
    ];
    for (name, sent) in vectors {
        assert_eq!(sent.verify("20150830T123900Z"), Ok(()), "{name}");
    }
}

fn signed_by_botocore() -> Vec<(String, Sent)> {
    let cases: serde_json::Value = serde_json::from_str(include_str!("data/signed.json")).unwrap();
    let text = |case: &serde_json::Value, name: &str| case[name].as_str().unwrap().to_owned();
    let sent = |case: &serde_json::Value| {
        let headers = case["headers"].as_object().unwrap().iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
            (HeaderName::try_from(name.as_str()).unwrap(), value)
        });
        Sent {
            method: text(case, "method"),
            path: text(case, "path"),
            query: text(case, "query"),
            headers: headers.collect(),
            body: text(case, "body").into_bytes(),
        }
    };
    cases.as_array().unwrap().iter().map(|case| (text(case, "name"), sent(case))).collect()
}

#[test]
fn what_botocore_signs_verifies() {
    let cases = signed_by_botocore();
    assert_eq!(cases.len(), 7);
    for (name, sent) in cases {
        assert_eq!(sent.verify("20260131T120200Z"), Ok(()), "{name}");
        let scope = sent.present().scope;
        assert_eq!((scope.access_key.as_str(), scope.region.as_str()), (KEY, "eu-west-1"), "{name}");
    }
}

#[test]
fn every_changed_part_is_refused() {
    for (name, sent) in signed_by_botocore() {
        let refused = |what: &str, change: &dyn Fn(&mut Sent)| {
            let mut changed = sent.clone();
            change(&mut changed);
            let outcome = changed.verify("20260131T120200Z");
            assert!(matches!(outcome, Err(Problem::Mismatch(_))), "{name}: {what}: {outcome:?}");
        };
        refused("method", &|sent| sent.method = "PUT".into());
        refused("path", &|sent| sent.path.push('x'));
        refused("query", &|sent| sent.query.push_str("&Extra=1"));
        refused("body", &|sent| sent.body.push(b' '));
        refused("host", &|sent| drop(sent.headers.insert("host", HeaderValue::from_static("evil:1"))));
        refused("target", &|sent| {
            drop(sent.headers.insert("x-amz-target", HeaderValue::from_static("X.Delete")))
        });
        refused("token", &|sent| {
            drop(sent.headers.insert("x-amz-security-token", HeaderValue::from_static("t")))
        });
    }
}

#[test]
fn a_claimed_body_hash_does_not_stand_for_the_body() {
    let sent = vanilla().header("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
    assert_eq!(sent.verify("20150830T123600Z"), Ok(()));
    let mut changed = sent;
    changed.body = b"x".to_vec();
    assert!(matches!(changed.verify("20150830T123600Z"), Err(Problem::Mismatch(_))));
}

#[test]
fn the_clock_may_be_five_minutes_off() {
    let check = |now, expected: Result<(), &str>| {
        let outcome = vanilla().verify(now).map_err(|problem| problem.to_string());
        assert_eq!(outcome, expected.map_err(str::to_owned), "{now}");
    };
    check("20150830T124100Z", Ok(()));
    check("20150830T123100Z", Ok(()));
    check(
        "20150830T124101Z",
        Err(
            "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)",
        ),
    );
    check(
        "20150830T123059Z",
        Err(
            "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T123059Z + 5 min.)",
        ),
    );
}

#[test]
fn a_presigned_url_lives_as_long_as_it_says() {
    let presigned = signed_by_botocore().into_iter().find(|(name, _)| name == "presigned").unwrap().1;
    assert_eq!(presigned.verify("20260131T125959Z"), Ok(()));
    assert!(matches!(presigned.verify("20260131T130001Z"), Err(Problem::Expired(_))));
    let mut longer = presigned.clone();
    longer.query = longer.query.replace("X-Amz-Expires=3600", "X-Amz-Expires=604801");
    assert!(matches!(longer.verify("20260131T120000Z"), Err(Problem::Incomplete(_))));
    longer.query = presigned.query.replace("X-Amz-Expires=3600", "X-Amz-Expires=7200");
    assert!(matches!(longer.verify("20260131T120000Z"), Err(Problem::Mismatch(_))));
}

#[test]
fn unsigned_requests_are_seen_as_such() {
    let mut sent = vanilla();
    sent.headers.remove("authorization");
    assert_eq!(present(&sent.request()), Ok(None));
    assert_eq!(present(&sent.header("authorization", "Bearer x").request()), Ok(None));
}

#[test]
fn incomplete_signatures_say_what_is_missing() {
    let check = |authorization: &str, expected: &str| {
        let problem = present(&vanilla().header("authorization", authorization).request()).unwrap_err();
        assert_eq!(problem.to_string(), expected);
    };
    check(
        "AWS4-HMAC-SHA256 SignedHeaders=host, Signature=0",
        "Authorization header requires 'Credential' parameter. Authorization=AWS4-HMAC-SHA256",
    );
    check("AWS4-X Credential=a", "Unsupported AWS 'algorithm': 'AWS4-X'.");
    check(
        "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0",
        "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'a/b'",
    );
    check(
        "AWS4-HMAC-SHA256 Credential=a/20150830/r/s/aws3, SignedHeaders=host, Signature=0",
        "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws3'.",
    );
}

#[test]
fn host_and_target_must_be_signed() {
    let check = |sent: Sent, expected: &str| {
        let problem = sent.verify("20150830T123600Z").unwrap_err();
        assert_eq!(problem.to_string(), expected);
    };
    check(
        vanilla().header("x-amz-target", "A.B"),
        "'x-amz-target' must be a 'SignedHeader' in the AWS Authorization.",
    );
    let unsigned_host = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=x-amz-date, Signature=0";
    check(
        vanilla().header("authorization", unsigned_host),
        "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
    );
}

#[test]
fn the_host_may_come_from_the_authority() {
    let mut sent = vanilla();
    sent.headers.remove("host");
    let mut request = sent.request();
    let presented = sent.present();
    let now = Timestamp::parse_basic("20150830T123600Z").unwrap();
    let secret = |_: &str, _: Option<&str>| Some(SECRET.to_owned());
    assert!(verify(&request, &presented, now, secret).is_err());
    request.authority = Some("example.amazonaws.com");
    assert_eq!(verify(&request, &presented, now, secret), Ok(()));
}

#[test]
fn each_protocol_has_its_own_codes() {
    let protocols = [Protocol::Json11, Protocol::Query, Protocol::Ec2];
    let check = |problem: Problem, expected: [(&str, u16); 3]| {
        let found = protocols.map(|protocol| problem.fault(protocol)).map(|fault| (fault.code, fault.status));
        assert_eq!(found, expected.map(|(code, status)| (code.to_owned(), status)));
    };
    check(
        Problem::Missing,
        [
            ("MissingAuthenticationTokenException", 400),
            ("MissingAuthenticationToken", 403),
            ("MissingAuthenticationToken", 403),
        ],
    );
    check(
        Problem::Incomplete(String::new()),
        [("IncompleteSignatureException", 400), ("IncompleteSignature", 400), ("IncompleteSignature", 400)],
    );
    check(
        Problem::UnknownKey,
        [("UnrecognizedClientException", 400), ("InvalidClientTokenId", 403), ("AuthFailure", 401)],
    );
    check(
        Problem::Mismatch(String::new()),
        [("InvalidSignatureException", 400), ("SignatureDoesNotMatch", 403), ("AuthFailure", 401)],
    );
    check(
        Problem::Expired(String::new()),
        [("InvalidSignatureException", 400), ("SignatureDoesNotMatch", 403), ("RequestExpired", 400)],
    );
}
