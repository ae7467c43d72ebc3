//! Tokens signed by keys made here, and one of an RSA key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::get_current_timestamp;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use super::*;

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const OPERATOR: &str = "system:serviceaccount:ortolan-system:ortolan-operator";
/// An RSA key, whose private half was thrown away when the token was signed; that one ends in 2100.
const MODULUS: &str = "r23UJLGTk8O7-V6uE8P55GSwPjcUJLW3Fv-3OMY3u4sww2rXLOgG9NcxzdhC7vy2T3IWftZF1npwJSCye3RsjJ0qwqWV7D5nrgLIl8ZG1QotFd9iJACWmS6XNKlg0XvfSy4XipdY5BZLg6xPrCSNV0KzmwMrH8JrJyyLTR84QpSZvDqs5cFnzRCeDKMNNPHPfQQ8LYpZUCXrKLHhXzqZOVLKSVbPaxMlhDcm6SpQcnNbsGrwHCkahgD-sukG5Uws9N5PhX28A4d0vFMsHfY2qrkWXkRcez4xJtJ8klP6bhYZ7vGpAZT0_GxgKwIkZQ3Kw7-fCh7C3bIvHsDQjpugtQ";
const BY_RSA: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJhdWQiOlsib3J0b2xhbi1yb3V0ZXItc3RhdHMiXSwiZXhwIjo0MTAyNDQ0ODAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8va3ViZXJuZXRlcy5kZWZhdWx0LnN2Yy5jbHVzdGVyLmxvY2FsIiwibmJmIjoxNzY3MjI1NjAwLCJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6b3J0b2xhbi1zeXN0ZW06b3J0b2xhbi1vcGVyYXRvciJ9.Bk2Aa_28msGbGUBz29zKgOK0F-RDstvfc3XpB6mw_nmBiXZ3ofb6U_RUlvLEWMHjRBFwwMB2qD9CdSerSf35sr6SeyG1cMopboEzkIokIj9bDlYu1_mUW6-O7za4bJGkKRqPlTNuCZAsviSDEh2REco1JeGG3LedxN_IY3XcVNjaTChWtXSOltS5gcpicl16ZshfYzhN580pCNCC4kWgpEzrLqg4QC-rfGlZsHsFoYQ4k73ik2M05_fOX-SWeLRhYMp5ZTbnQqW7JR49nBDOAgOtpIyjIxmOJi4MpUWi_un_Cul_Yq1yTe5Z0M-SV3Lwv7EVm_7fD7MEbJ4Nh4YTgw";

pub fn reader() -> Account {
    "ortolan-system/ortolan-operator".parse().unwrap()
}

pub fn configuration() -> String {
    json!({"issuer": ISSUER, "jwks_uri": "https://10.0.0.1:6443/openid/v1/jwks"}).to_string()
}

/// A key of the API server.
pub struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub fn new(id: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        Self { id, pair }
    }

    fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn public(&self) -> Value {
        let (x, y) = self.point()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": b64(x), "y": b64(y)})
    }

    fn sign(&self, head: &Value, claims: &Value) -> String {
        let message = message(head, claims);
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes());
        format!("{message}.{}", b64(signature.unwrap()))
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "kid": self.id}), claims)
    }
}

fn message(head: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(head.to_string()), b64(claims.to_string()))
}

pub fn jwks(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.public()).collect();
    json!({ "keys": keys }).to_string()
}

/// What Kubernetes writes into the operator's token.
pub fn claims() -> Value {
    let now = get_current_timestamp();
    json!({
        "aud": [AUDIENCE], "exp": now + 3600, "iat": now, "nbf": now, "iss": ISSUER, "sub": OPERATOR, "jti": "x",
        "kubernetes.io": {"namespace": "ortolan-system", "serviceaccount": {"name": "ortolan-operator", "uid": "u"}},
    })
}

/// Those with this one changed; `null` takes it away.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let all = claims.as_object_mut().unwrap();
    match value {
        Value::Null => all.remove(name),
        value => all.insert(name.to_owned(), value),
    };
    claims
}

fn keys(signers: &[&Signer]) -> Keys {
    Keys::read(&configuration(), &jwks(signers)).unwrap()
}

#[test]
fn a_token_of_the_reader_for_us_is_taken_and_a_little_difference_of_clocks_too() {
    let signer = Signer::new("a");
    let (keys, now) = (keys(&[&Signer::new("b"), &signer]), get_current_timestamp());
    for claims in [
        claims(),
        with("aud", json!(AUDIENCE)),
        with("aud", json!(["https://kubernetes.default.svc", AUDIENCE])),
        with("nbf", Value::Null),
        with("nbf", json!(now + LEEWAY - 10)),
        with("exp", json!(now - LEEWAY + 10)),
    ] {
        assert_eq!(
            keys.check(&signer.token(&claims), &reader()),
            Ok(()),
            "{claims}"
        );
    }
}

#[test]
fn each_bad_claim_is_refused_with_its_sentence() {
    let (signer, now) = (Signer::new("a"), get_current_timestamp());
    let keys = keys(&[&signer]);
    let of = |account: &str| json!(format!("system:serviceaccount:{account}"));
    for (name, value, said) in [
        ("exp", json!(now - LEEWAY - 10), "it has expired"),
        ("exp", json!(0), "it has expired"),
        ("exp", Value::Null, "it has no exp that could be used"),
        ("exp", json!("tomorrow"), "it has no exp that could be used"),
        ("nbf", json!(now + LEEWAY + 10), "it is not valid yet"),
        ("nbf", json!("soon"), "it has no nbf that could be used"),
        (
            "aud",
            json!(["https://kubernetes.default.svc"]),
            "ask for one for ortolan-router-stats",
        ),
        ("aud", json!([]), "another audience"),
        ("aud", json!("ortolan-router-stats-2"), "another audience"),
        ("aud", Value::Null, "it has no aud that could be used"),
        (
            "iss",
            json!("kubernetes/serviceaccount"),
            "its issuer is not https://kubernetes.default.svc.cluster.local",
        ),
        ("iss", Value::Null, "it has no iss that could be used"),
        (
            "sub",
            of("ortolan-system:default"),
            "it is of system:serviceaccount:ortolan-system:default, and system:serviceaccount:ortolan-system:ortolan-operator reads here",
        ),
        (
            "sub",
            of("team:ortolan-operator"),
            "it is of system:serviceaccount:team:ortolan-operator",
        ),
        (
            "sub",
            json!("system:serviceaccount:ortolan-system:ortolan-operator "),
            "reads here",
        ),
        ("sub", json!(""), "reads here"),
        ("sub", json!(7), "no signed token"),
        ("sub", Value::Null, "it has no sub that could be used"),
    ] {
        let claims = with(name, value);
        let bad = keys.check(&signer.token(&claims), &reader()).unwrap_err();
        assert!(bad.to_string().contains(said), "{claims}: {bad}");
    }
}

#[test]
fn nobody_chooses_how_or_by_whom_a_token_is_signed() {
    let (signer, other) = (Signer::new("a"), Signer::new("a"));
    let keys = keys(&[&signer]);
    let good = signer.token(&claims());
    let (body, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = body.split_once('.').unwrap();
    let by = |alg: &str| message(&json!({"alg": alg, "kid": "a"}), &claims());
    // The public key as everybody's secret.
    let secret = hmac::Key::new(hmac::HMAC_SHA256, signer.point());
    let by_secret = by("HS256");
    let tag = b64(hmac::sign(&secret, by_secret.as_bytes()));
    let other_claims = b64(with("jti", json!("y")).to_string());
    for (token, said) in [
        (other.token(&claims()), "its signature is not right"),
        (
            format!("{head}.{other_claims}.{signature}"),
            "its signature is not right",
        ),
        (format!("{body}."), "its signature is not right"),
        (format!("{}.", by("none")), "no signed token"),
        (format!("{}.{signature}", by("none")), "no signed token"),
        (
            format!("{by_secret}.{tag}"),
            "it says HS256, and its key is one for ES256",
        ),
        (
            format!("{}.{signature}", by("RS256")),
            "it says RS256, and its key is one for ES256",
        ),
        (
            format!("{}.{signature}", by("ES384")),
            "it says ES384, and its key is one for ES256",
        ),
        (
            signer.sign(&json!({"alg": "ES256"}), &claims()),
            "by which key",
        ),
        (
            Signer::new("b").token(&claims()),
            "the API server has no key \"b\"",
        ),
        (body.to_owned(), "no signed token"),
        (String::new(), "no signed token"),
        ("a.b.c".to_owned(), "no signed token"),
        (format!("{good}.x"), "no signed token"),
        ("x".repeat(LONGEST + 1), "longer than 16384 bytes"),
    ] {
        let bad = keys.check(&token, &reader()).unwrap_err();
        assert!(bad.to_string().contains(said), "{token}: {bad}");
    }
    assert_eq!(
        keys.check(&good, &reader()),
        Ok(()),
        "the one that all of them were made of"
    );
}

#[test]
fn a_token_that_an_rsa_key_signed_is_taken_and_not_with_one_letter_changed() {
    let rsa = json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa", "n": MODULUS, "e": "AQAB"});
    let keys = Keys::read(&configuration(), &json!({"keys": [rsa]}).to_string()).unwrap();
    assert_eq!(keys.check(BY_RSA, &reader()), Ok(()));
    let (body, signature) = BY_RSA.rsplit_once('.').unwrap();
    let changed = format!("{body}.C{}", &signature[1..]);
    assert_eq!(keys.check(&changed, &reader()), Err(Bad::Signature));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &URL_SAFE_NO_PAD.decode(MODULUS).unwrap());
    let message = message(&json!({"alg": "HS256", "kid": "rsa"}), &claims());
    let token = format!("{message}.{}", b64(hmac::sign(&secret, message.as_bytes())));
    let bad = keys.check(&token, &reader());
    assert_eq!(bad, Err(Bad::Algorithm(Algorithm::HS256, Algorithm::RS256)));
}

#[test]
fn keys_that_nobody_here_knows_take_no_other_one_with_them() {
    let signer = Signer::new("a");
    let mut all = vec![
        json!({"kty": "EC", "crv": "P-999", "kid": "x", "x": "", "y": ""}),
        json!({"kty": "new", "kid": "y"}),
        json!({"kty": "oct", "kid": "a", "k": "c2VjcmV0"}),
        json!({"kty": "RSA", "use": "enc", "kid": "a", "n": MODULUS, "e": "AQAB"}),
        json!(3),
    ];
    all.push(signer.public());
    let keys = Keys::read(&configuration(), &json!({ "keys": all }).to_string()).unwrap();
    assert_eq!(keys.check(&signer.token(&claims()), &reader()), Ok(()));
    all.pop();
    for (configuration, written, said) in [
        (
            configuration(),
            json!({ "keys": all }).to_string(),
            "no key for RS256 or ES256",
        ),
        (configuration(), "{}".to_owned(), "its keys cannot be read"),
        (
            "<html>".to_owned(),
            jwks(&[&signer]),
            "its OpenID configuration cannot be read",
        ),
    ] {
        let error = Keys::read(&configuration, &written).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn an_account_is_a_namespace_and_a_name() {
    assert_eq!(reader().to_string(), OPERATOR);
    let dots: Account = "a/b.c-1".parse().unwrap();
    assert_eq!(dots.to_string(), "system:serviceaccount:a:b.c-1");
    for wrong in [
        "", "a", "a/", "/b", "a/b/c", "a.b/c", "A/b", OPERATOR, "a:b/c", " a/b",
    ] {
        let error = wrong.parse::<Account>().unwrap_err();
        assert!(error.contains("write NAMESPACE/NAME"), "{wrong}: {error}");
    }
}
