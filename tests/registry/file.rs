//! A registry in a folder.

use std::fs::{self, File};
use std::time::Duration;

use crate::engine::Folder;
use crate::laws::{Engine, laws};
use crate::{done, open, problem, put, transact};

/// Nobody serves it; it is silent when somebody has its lock and does not let go.
struct InFolder {
    folder: Folder,
    lock: Option<File>,
}

impl InFolder {
    /// Has the lock of the registry until what it gives is dropped.
    fn lock(&self) -> File {
        let file = File::open(self.folder.join("registry/registry.lock")).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        file
    }
}

impl Engine for InFolder {
    fn start() -> Self {
        Self { folder: Folder::new(), lock: None }
    }

    fn url(&self) -> String {
        format!("file://{}", self.folder.join("registry"))
    }

    fn silence(&mut self, is_silent: bool) {
        self.lock = is_silent.then(|| self.lock());
    }

    /// What a writer left that died before it was done. It had the lock until then.
    fn restart(&mut self) {
        let _lock = self.lock();
        fs::write(self.folder.join("registry/registry.new"), b"zmqlocker registry 1 99\nhalf")
            .unwrap();
    }
}

laws!(InFolder);

#[test]
fn a_folder_that_holds_something_else_is_told_of() {
    let folder = Folder::new();
    fs::write(folder.join("registry"), b"my accounts").unwrap();
    let url = format!("file://{}", folder.join(""));
    let told = problem(&url, Duration::from_secs(1));
    assert!(told.contains("it is no registry of zmqlocker"), "{told}");
    assert_eq!(fs::read(folder.join("registry")).unwrap(), b"my accounts");
}

#[test]
fn a_folder_that_cannot_be_made_is_told_of() {
    let told = problem("file:///nowhere/registry", Duration::from_secs(1));
    assert!(told.contains("file:///nowhere/registry cannot be used"), "{told}");
}

#[test]
fn what_is_written_is_for_its_owner_alone() {
    use std::os::unix::fs::MetadataExt;
    let engine = InFolder::start();
    done(transact(&mut *open(&engine.url()), &[], &[put("a", b"")]));
    for name in ["registry/registry", "registry/registry.lock"] {
        assert_eq!(fs::metadata(engine.folder.join(name)).unwrap().mode() & 0o077, 0, "{name}");
    }
}
