//! Takes the records of a store that are about the cluster.

use crate::change::ClusterChange;
use crate::directory::Directory;
use crate::racks::Racks;
use pool::addr::{PageSize, RackId};
use pool::proto::cluster::{ClientName, Cluster};
use std::collections::BTreeMap;

/// What is known of a cluster while its records come in.
pub(crate) struct Loader {
    was: Option<Cluster>,
    racks: Racks,
    directory: Directory,
    /// Sessions of mounts, and which clients those are.
    pub(crate) mounts: BTreeMap<u64, (RackId, ClientName)>,
    /// What is wrong with the records, a sentence each.
    pub(crate) wrong: Vec<String>,
}

impl Loader {
    /// Nothing loaded yet.
    pub(crate) fn new(page_size: PageSize) -> Self {
        let directory = Directory::new(0, page_size);
        Self { was: None, racks: Racks::default(), directory, mounts: BTreeMap::new(), wrong: Vec::new() }
    }

    /// Takes one record.
    pub(crate) fn add(&mut self, record: ClusterChange) {
        match record {
            ClusterChange::PutCluster(cluster) => self.was = Some(cluster),
            ClusterChange::PutRack(join) => self.racks.remember(join),
            ClusterChange::PutMount(session, rack, client) => {
                self.mounts.insert(session, (rack, client));
            }
            record => {
                self.wrong.extend(self.directory.objection(&record));
                self.directory.apply(&record);
            }
        }
    }

    /// Which cluster the records are of, if they say; its term is the last.
    pub(crate) fn was(&self) -> Option<Cluster> {
        self.was
    }

    /// What was loaded, in a new term.
    pub(crate) fn begin(mut self, term: u64) -> (Racks, Directory) {
        self.directory.begin(term);
        (self.racks, self.directory)
    }
}
