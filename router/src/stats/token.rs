//! Whether a token is one that the cluster gave to the operator, for us.
//!
//! Inputs: what the API server says of its keys, a token, who may read, and the clock. Output: nothing, or what is wrong.
//! Invariants: the algorithm is the key's and never the token's, so that nobody chooses another one; of a token whose
//! signature was not checked nothing is believed.

use std::{collections::HashMap, fmt, str::FromStr};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use ortolan_stats::AUDIENCE;
use serde::Deserialize;

/// Between the clocks of the API server and of this node, in seconds.
const LEEWAY: u64 = 30;
/// Of a token, in bytes: those of Kubernetes have about one thousand.
const LONGEST: usize = 16 << 10;

/// A ServiceAccount; written `NAMESPACE/NAME`, told as Kubernetes names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    namespace: String,
    name: String,
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |name: &str, dots: bool| {
            let is_in = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !name.is_empty() && name.chars().all(|c| is_in(c) || dots && c == '.')
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace, false) && is_name(name, true) => {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(format!(
                "{text:?} is no ServiceAccount: write NAMESPACE/NAME, for instance ortolan-system/ortolan-operator"
            )),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name } = self;
        write!(f, "system:serviceaccount:{namespace}:{name}")
    }
}

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// No token as Kubernetes makes them.
    #[error("it is no signed token of a ServiceAccount: {0}")]
    Form(String),
    /// It does not say whose signature it has.
    #[error("it does not say by which key it is signed (kid)")]
    NoKey,
    /// Nobody knows that key.
    #[error("the API server has no key {0:?}: it is of another cluster, or the key was withdrawn")]
    UnknownKey(String),
    /// Its key is for another algorithm: first that of the token, then that of the key.
    #[error("it says {0:?}, and its key is one for {1:?}")]
    Algorithm(Algorithm, Algorithm),
    /// The key did not sign it.
    #[error("its signature is not right")]
    Signature,
    /// Too late.
    #[error("it has expired: read the file anew, the kubelet writes it again before that")]
    Expired,
    /// Too early.
    #[error("it is not valid yet: do the clocks of the nodes and of the API server agree?")]
    Early,
    /// Another issuer than this one.
    #[error("its issuer is not {0}")]
    Issuer(String),
    /// It is for somebody else.
    #[error("it is for another audience: ask for one for {AUDIENCE}")]
    Audience,
    /// Of whom it is, and who may read.
    #[error("it is of {0}, and {1} reads here (--stats-reader)")]
    Subject(String, Account),
    /// Without this claim.
    #[error("it has no {0} that could be used")]
    Claim(String),
}

impl Bad {
    /// Whether newer keys may be all that is missing.
    #[must_use]
    pub const fn is_perhaps_newer(&self) -> bool {
        matches!(self, Self::UnknownKey(_) | Self::Issuer(_))
    }
}

/// What the API server says of the tokens that it gives.
#[derive(Clone, Debug)]
pub struct Keys {
    issuer: String,
    by_id: HashMap<String, (Algorithm, DecodingKey)>,
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
}

/// Each is read by itself: one that nobody here knows takes no other one with it.
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
}

fn key(written: serde_json::Value) -> Option<(String, (Algorithm, DecodingKey))> {
    let jwk: Jwk = serde_json::from_value(written).ok()?;
    let is_for_signatures = match &jwk.common.public_key_use {
        None | Some(PublicKeyUse::Signature) => true,
        Some(_) => false,
    };
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        _ => return None,
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let id = jwk.common.key_id?;
    is_for_signatures.then_some((id, (algorithm, key)))
}

impl Keys {
    /// Of the two documents of OpenID discovery.
    ///
    /// # Errors
    /// When they are not what an API server writes.
    pub fn read(configuration: &str, keys: &str) -> Result<Self, String> {
        super::signature::install();
        let Configuration { issuer } = serde_json::from_str(configuration)
            .map_err(|error| format!("its OpenID configuration cannot be read: {error}"))?;
        let Set { keys } = serde_json::from_str(keys)
            .map_err(|error| format!("its keys cannot be read: {error}"))?;
        let by_id: HashMap<_, _> = keys.into_iter().filter_map(key).collect();
        if by_id.is_empty() {
            return Err("it has no key for RS256 or ES256".to_owned());
        }
        Ok(Self { issuer, by_id })
    }

    /// Who gives the tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether a token is one of this account, for us, and now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, token: &str, reader: &Account) -> Result<(), Bad> {
        if token.len() > LONGEST {
            return Err(Bad::Form(format!("it is longer than {LONGEST} bytes")));
        }
        let head = decode_header(token).map_err(|error| Bad::Form(error.to_string()))?;
        let id = head.kid.ok_or(Bad::NoKey)?;
        let Some((algorithm, key)) = self.by_id.get(&id) else {
            return Err(Bad::UnknownKey(id));
        };
        if head.alg != *algorithm {
            return Err(Bad::Algorithm(head.alg, *algorithm));
        }
        let mut validation = Validation::new(*algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[AUDIENCE]);
        let token = decode::<Claims>(token, key, &validation)
            .map_err(|error| self.bad(error.into_kind()))?;
        let (is, may) = (token.claims.sub.unwrap_or_default(), reader.to_string());
        if is == may {
            Ok(())
        } else {
            Err(Bad::Subject(is, reader.clone()))
        }
    }

    fn bad(&self, kind: ErrorKind) -> Bad {
        match kind {
            ErrorKind::InvalidSignature => Bad::Signature,
            ErrorKind::ExpiredSignature => Bad::Expired,
            ErrorKind::ImmatureSignature => Bad::Early,
            ErrorKind::InvalidIssuer => Bad::Issuer(self.issuer.clone()),
            ErrorKind::InvalidAudience => Bad::Audience,
            ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
                Bad::Claim(claim)
            }
            other => Bad::Form(jsonwebtoken::errors::new_error(other).to_string()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
