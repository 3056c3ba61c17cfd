//! `rcmp wipe`: giving up an old pool.

use super::ToolError;
use crate::cxl::region::{Wiped, wipe};
use clap::Args;
use std::path::PathBuf;

/// What is to be given up.
#[derive(Debug, Args)]
pub struct WipeArgs {
    /// A devdax device, or a file.
    path: PathBuf,
    /// Do it. Without this only tells what would be lost.
    #[arg(long)]
    yes: bool,
}

/// Gives it up, if nobody uses it.
pub fn run(arguments: &WipeArgs) -> Result<(), ToolError> {
    let name = arguments.path.display();
    let wiped = wipe(&arguments.path, arguments.yes).map_err(|error| ToolError::Region(error.to_string()))?;
    let what = match wiped {
        Wiped::Nothing => {
            println!("{name} holds no pool");
            return Ok(());
        }
        Wiped::Pool(rack, bytes) => format!("the pool of rack {rack}, {bytes} bytes"),
        Wiped::Other => "what is on it, which is no pool of this version".into(),
    };
    if arguments.yes {
        println!("{name}: {what}, given up");
        return Ok(());
    }
    Err(ToolError::Usage(format!("{name} would lose {what}; give --yes if that is meant")))
}
