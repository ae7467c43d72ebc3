//! Where the table comes from.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::{directory::Directory, failure::Failure, options::Options};

pub mod file;
pub mod index;
pub mod kubernetes;
pub mod last;
pub mod routing;
mod shadow;

/// Begins to keep the directory up to date; ends when what it gives is dropped.
///
/// # Errors
/// When the source that was chosen cannot be used at all.
pub async fn start(options: &Options, directory: Arc<Directory>) -> Result<JoinSet<()>, Failure> {
    let mut tasks = JoinSet::new();
    match &options.state {
        Some(path) => {
            let followed = file::Followed::open(path.clone(), directory)?;
            tasks.spawn(followed.follow());
        }
        None => kubernetes::start(&options.cluster, directory, &mut tasks).await?,
    }
    Ok(tasks)
}
