//! What Argo CD makes of an object by docs/gitops/health.lua: the file itself, run by Lua 5.1, which is the version that Argo CD
//! embeds, with the libraries that it opens.

use mlua::{Lua, LuaOptions, LuaSerdeExt as _, StdLib};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const SCRIPT: &str = include_str!("../../docs/gitops/health.lua");

/// Argo CD's health.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Health {
    /// `Healthy`, `Progressing`, `Suspended`, `Degraded`.
    pub status: String,
    /// Why.
    pub message: String,
}

/// The health of an object.
///
/// # Errors
/// When the script fails, or answers something else.
pub fn health(object: &impl Serialize) -> Result<Health, mlua::Error> {
    let libraries = StdLib::TABLE | StdLib::STRING;
    let lua = Lua::new_with(libraries, LuaOptions::default())?;
    // An absent field is nil there, and so is one that is null.
    let options = mlua::SerializeOptions::new()
        .serialize_none_to_null(false)
        .serialize_unit_to_null(false);
    lua.globals()
        .set("obj", lua.to_value_with(object, options)?)?;
    lua.from_value(lua.load(SCRIPT).set_name("health.lua").eval()?)
}

/// Reads an object that is written as YAML.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str(text)
}
