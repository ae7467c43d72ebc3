//! Credentials as a Secret holds them: a folder with one file for each key.
//!
//! Known keys for http: `token` (sent as Bearer), or `username` and `password` (sent as Basic).

use std::{fmt, fs, path::Path};

use crate::failure::{Failure, Reason};

const KEYS: &str = "give either the key token, or the keys username and password";

/// What is sent to the store. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Bearer(String),
    Basic { username: String, password: String },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer(…)",
            Self::Basic { .. } => "Basic(…)",
        })
    }
}

/// Reads the folder. A line feed at a value's end, as editors leave it, is dropped.
pub(crate) fn read(dir: &Path) -> Result<Credentials, Failure> {
    if !dir.is_dir() {
        return Err(wrong(dir, "is no folder"));
    }
    match (
        key(dir, "token")?,
        key(dir, "username")?,
        key(dir, "password")?,
    ) {
        (Some(token), None, None) => Ok(Credentials::Bearer(token)),
        (None, Some(username), Some(password)) => {
            if username.contains(':') {
                return Err(wrong(
                    dir,
                    "has a username with a colon, which HTTP cannot carry",
                ));
            }
            Ok(Credentials::Basic { username, password })
        }
        (Some(_), _, _) => Err(wrong(dir, "has token beside username or password")),
        (None, Some(_), None) => Err(wrong(dir, "has username but no password")),
        (None, None, Some(_)) => Err(wrong(dir, "has password but no username")),
        (None, None, None) => Err(wrong(dir, &format!("has {}", present(dir)))),
    }
}

fn key(dir: &Path, name: &str) -> Result<Option<String>, Failure> {
    let path = dir.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let value = text.trim_end_matches(['\r', '\n']);
            if value.is_empty() || value.chars().any(char::is_control) {
                return Err(wrong(dir, &format!("has an empty or multi-line {name}")));
            }
            Ok(Some(value.to_owned()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(wrong(
            dir,
            &format!("has the key {name}, which cannot be read ({e})"),
        )),
    }
}

/// The keys that are there instead, by name only.
fn present(dir: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| !n.starts_with('.'))
        .collect();
    names.sort();
    if names.is_empty() {
        "no key".to_owned()
    } else {
        format!("only {}", names.join(", "))
    }
}

fn wrong(dir: &Path, what: &str) -> Failure {
    Failure::new(
        Reason::InvalidConfig,
        format!(
            "the credentials in {} cannot be used: the Secret {what}; {KEYS}",
            dir.display()
        ),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn of(keys: &[(&str, &str)]) -> Result<Credentials, Failure> {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in keys {
            fs::write(dir.path().join(name), value).unwrap();
        }
        read(dir.path())
    }

    #[test]
    fn a_token_or_a_pair_is_read_without_its_line_feed() {
        assert_eq!(
            of(&[("token", "abc\n")]).unwrap(),
            Credentials::Bearer("abc".into())
        );
        assert_eq!(
            of(&[("username", "ann"), ("password", " p w \r\n")]).unwrap(),
            Credentials::Basic {
                username: "ann".into(),
                password: " p w ".into()
            }
        );
    }

    #[test]
    fn every_other_set_of_keys_is_refused_and_no_value_is_shown() {
        let cases: [(&[(&str, &str)], &str); 7] = [
            (&[], "has no key"),
            (&[("accessKeyId", "s3cret")], "only accessKeyId"),
            (&[("username", "s3cret")], "no password"),
            (&[("password", "s3cret")], "no username"),
            (
                &[("token", "s3cret"), ("username", "s3cret")],
                "beside username",
            ),
            (&[("token", "s3c\nret")], "multi-line"),
            (&[("username", "s3cret:x"), ("password", "s3cret")], "colon"),
        ];
        for (keys, words) in cases {
            let failure = of(keys).unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidConfig);
            assert!(failure.message.contains(words), "{failure}");
            assert!(!failure.message.contains("s3c"), "{failure}");
            assert!(
                failure.message.contains("give either the key token"),
                "{failure}"
            );
        }
        assert!(!format!("{:?}", of(&[("token", "s3cret")]).unwrap()).contains("s3cret"));
    }
}
