//! What may be found after a crash: the state before the operation that was under way, the state after
//! it, or, for data that nobody promised yet, any mixture of the two.

use e2e::rustix::fs::{getxattr, listxattr};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// What a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file: contents, permissions, the value of `user.version`.
    File { bytes: Arc<Vec<u8>>, mode: u32, version: Option<Vec<u8>> },
    /// A directory.
    Dir,
    /// A symbolic link.
    Link(String),
}

impl Node {
    /// A file as the writers make them.
    pub fn file(bytes: Vec<u8>) -> Self {
        Node::File { bytes: Arc::new(bytes), mode: 0o644, version: None }
    }
}

/// Everything in one writer's directory.
pub type State = BTreeMap<String, Node>;

/// What one writer knows. Between operations `after` is `None`.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// What was promised.
    pub before: State,
    /// What will be promised when the present operation returns.
    pub after: Option<State>,
    /// What the present operation does to data that nobody promised yet.
    pub data: Option<Changing>,
}

/// A change of data, bit by bit.
#[derive(Clone, Debug)]
pub struct Changing {
    /// The file.
    pub name: String,
    /// What it may hold meanwhile, besides what it held before and will hold afterwards.
    pub meanwhile: Arc<Vec<u8>>,
    /// Whether it is emptied on the way, so that any part may be zeros.
    pub emptied: bool,
}

impl Expect {
    /// An operation begins that changes all at once or nothing.
    pub fn begin(&mut self, after: State) {
        (self.after, self.data) = (Some(after), None);
    }

    /// An operation begins that changes the data of `name`, bit by bit, straight to what `after` says.
    pub fn begin_data(&mut self, name: &str, after: State) {
        self.begin_data_over(name, after, Vec::new(), false);
    }

    /// As [`begin_data`](Self::begin_data), by way of other contents.
    pub fn begin_data_over(&mut self, name: &str, after: State, meanwhile: Vec<u8>, emptied: bool) {
        self.after = Some(after);
        self.data = Some(Changing { name: name.into(), meanwhile: Arc::new(meanwhile), emptied });
    }

    /// The operation returned: now it is promised.
    pub fn done(&mut self) {
        self.before = self.after.take().expect("an operation was under way");
        self.data = None;
    }

    /// Compares with what was found; the reason if that breaks the promise.
    pub fn check(&self, found: &State) -> Result<(), String> {
        let after = self.after.as_ref().unwrap_or(&self.before);
        if *found == self.before || found == after {
            return Ok(());
        }
        for name in self.before.keys().chain(after.keys()).chain(found.keys()) {
            let (old, new, got) = (self.before.get(name), after.get(name), found.get(name));
            let fine = match &self.data {
                Some(changing) if changing.name == *name => changing.allows(old, new, got),
                // Of names that one operation changes together each must be as before or as after;
                // that all agree is looked at below.
                _ => got == old || got == new,
            };
            if !fine {
                return Err(format!(
                    "{name}: found {}, promised {}, or then {}",
                    show(got),
                    show(old),
                    show(new)
                ));
            }
        }
        match self.data {
            Some(_) => Ok(()),
            None => Err("an operation on several names was done by halves".into()),
        }
    }
}

impl Changing {
    /// Whether `got` can be something between `old` and `new`.
    fn allows(&self, old: Option<&Node>, new: Option<&Node>, got: Option<&Node>) -> bool {
        if got == old || got == new {
            return true;
        }
        let Some(Node::File { bytes: got, .. }) = got else { return false };
        let versions = [contents(old), &self.meanwhile[..], contents(new)];
        let most = versions.iter().map(|bytes| bytes.len()).max().unwrap_or(0);
        let fits = |i: usize, byte: u8| {
            let zeros = self.emptied || i >= versions[0].len();
            byte == 0 && zeros || versions.iter().any(|bytes| bytes.get(i) == Some(&byte))
        };
        got.len() <= most && got.iter().enumerate().all(|(i, byte)| fits(i, *byte))
    }
}

fn contents(node: Option<&Node>) -> &[u8] {
    match node {
        Some(Node::File { bytes, .. }) => bytes,
        _ => &[],
    }
}

fn show(node: Option<&Node>) -> String {
    match node {
        Some(Node::File { bytes, mode, version }) => {
            let digest = e2e::tree::digest(bytes);
            format!("a file of {} bytes ({digest:x}), mode {mode:o}, version {version:?}", bytes.len())
        }
        other => format!("{other:?}"),
    }
}

/// What is in `dir` now.
pub fn look(dir: &Path) -> State {
    let mut state = State::new();
    for entry in fs::read_dir(dir).expect("the directory survives") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("the names are text");
        state.insert(name, node(&entry.path()));
    }
    state
}

fn node(path: &Path) -> Node {
    let meta = fs::symlink_metadata(path).expect("a listed name exists");
    if meta.is_dir() {
        return Node::Dir;
    }
    if meta.is_symlink() {
        return Node::Link(fs::read_link(path).expect("a link").display().to_string());
    }
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(bytes.len() as u64, meta.len(), "{}", path.display());
    let mut names = [0; 1000];
    let listed = listxattr(path, &mut names[..]).expect("attributes can be listed");
    let version = (listed > 0).then(|| {
        let mut value = vec![0; 100];
        let len = getxattr(path, "user.version", &mut value).expect("a listed attribute exists");
        value.truncate(len);
        value
    });
    Node::File { bytes: Arc::new(bytes), mode: meta.mode() & 0o7777, version }
}
