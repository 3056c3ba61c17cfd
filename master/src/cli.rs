//! The command line of `rcmp-master`: what is written, and the store that it names.

use crate::config::{MasterConfig, Pages};
use crate::store::sled::{Identity, SledStore, Tuning};
use crate::store::{Store, StoreError, Volatile};
use clap::Parser;
use pool::addr::PageSize;
use pool::proto::meta::Caller;
use pool::units::parse_page_size;
use std::path::PathBuf;

/// The size of a page of a cluster that is made now, in bytes.
const PAGE: u64 = 64 << 10;

/// The master of a cluster: which racks there are, where pages are, and the names of the file system.
///
/// Ends in order on SIGTERM and SIGINT. Nothing is authenticated: whoever reaches the port can read and
/// change everything.
#[derive(Debug, Parser)]
#[command(name = "rcmp-master", version)]
pub struct Options {
    /// Where to listen for daemons and clients: HOST:PORT. Port 0: one that is free.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:31850")]
    pub listen: String,
    /// A directory that keeps everything, made if it is not there. Without it all is in memory, and gone when
    /// the master ends.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The size of a page: a power of two from 4K to 2M. Default: that of the state, or else 64K.
    #[arg(long, value_name = "SIZE", value_parser = parse_page_size)]
    pub page_size: Option<PageSize>,
    /// The most files and directories.
    #[arg(long, value_name = "COUNT", default_value_t = 1 << 32, value_parser = clap::value_parser!(u64).range(16..))]
    pub inodes: u64,
    /// Mend names that are damaged, keeping what can be kept; copy the state first. Without it they are refused.
    #[arg(long)]
    pub repair: bool,
}

impl Options {
    /// The store, and what a master on it is told. `fresh` is the id of a cluster that is made now, `root` owns
    /// the root directory of its file system.
    ///
    /// # Errors
    /// The store cannot be opened, or holds a cluster with pages of another size.
    pub fn open(&self, fresh: u128, root: Caller) -> Result<(MasterConfig, Box<dyn Store>), StoreError> {
        let page_size = self.page_size.or(PageSize::from_bytes(PAGE)).unwrap_or(PageSize::MIN);
        let fresh = Identity { pool: fresh, page_size };
        let (store, found): (Box<dyn Store>, _) = match &self.state {
            None => (Box::new(Volatile), fresh),
            Some(dir) => {
                let (store, found) = SledStore::open_any(dir, fresh, Tuning::default())?;
                if let Some(wanted) = self.page_size.filter(|wanted| *wanted != found.page_size) {
                    return Err(StoreError::Mismatch(format!(
                        "{} is that of a cluster with pages of {}, not {wanted}; leave --page-size out, or give \
                         another --state",
                        dir.display(),
                        found.page_size
                    )));
                }
                (Box::new(store), found)
            }
        };
        let config = MasterConfig {
            store: self.state.clone(),
            page_size: found.page_size,
            max_inodes: self.inodes,
            pool_id: found.pool,
            pages: Pages::Cluster,
            root,
            repair: self.repair,
        };
        Ok((config, store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Caller = Caller { uid: 0, gid: 0 };

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        let all = ["rcmp-master"].iter().chain(arguments);
        Options::try_parse_from(all).map_err(|error| error.to_string())
    }

    #[test]
    fn a_cluster_that_is_made_gets_the_page_size_that_is_said_or_the_usual_one() {
        for (arguments, bytes) in [(&[][..], PAGE), (&["--page-size", "4K"], 4096)] {
            let (config, _) = parse(arguments).unwrap().open(7, ROOT).unwrap();
            assert_eq!((config.page_size.bytes(), config.pool_id), (bytes, 7));
        }
    }

    #[test]
    fn a_state_remembers_its_cluster_and_refuses_another_page_size() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().to_str().unwrap();
        let open = |id, more: &[&str]| parse(&[&["--state", state], more].concat()).unwrap().open(id, ROOT);
        let (_, store) = open(7, &["--page-size", "4K"]).unwrap();
        store.begin().unwrap();
        store.close().unwrap();
        drop(store);
        let (config, store) = open(8, &[]).unwrap();
        assert_eq!((config.pool_id, config.page_size), (7, PageSize::MIN));
        drop(store);
        let error = open(8, &["--page-size", "64K"]).map(drop).unwrap_err().to_string();
        assert!(error.contains("--page-size") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (arguments, word) in [
            (&["--page-size", "3K"][..], "page"),
            (&["--page-size", "4M"], "page"),
            (&["--inodes", "0"], "inodes"),
            (&["--stat", "x"], "--stat"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(word), "{arguments:?}: {error}");
        }
    }
}
