//! Copies of requests, as the table has them.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{Endpoint, TableError};
use crate::compare::Compare;

/// Which requests are copied, to whom, and how the answers are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mirror {
    /// The revision that gets the copies. It may be one of the service's revisions, or one that gets no requests yet.
    pub revision: String,
    /// Of a hundred requests that other revisions answered and that can be compared, so many are copied.
    pub percent: Percent,
    /// How the answers are compared.
    pub compare: Compare,
    /// Requests that one of its pods works on at a time, where it is none of the service's revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<NonZeroU32>,
    /// Its pods, where it is none of the service's revisions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
}

/// 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Percent(u8);

impl Percent {
    /// 1 to 100.
    ///
    /// # Errors
    /// Outside of that range.
    pub fn new(percent: i64) -> Result<Self, TableError> {
        match u8::try_from(percent) {
            Ok(percent @ 1..=100) => Ok(Self(percent)),
            _ => Err(TableError::Percent(percent)),
        }
    }

    /// 1 to 100.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<i64> for Percent {
    type Error = TableError;

    fn try_from(percent: i64) -> Result<Self, TableError> {
        Self::new(percent)
    }
}

impl From<Percent> for i64 {
    fn from(percent: Percent) -> Self {
        percent.0.into()
    }
}
