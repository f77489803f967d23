//! An authority, and certificates that it has signed.

use std::fs;
use std::process::Command;

use crate::engine::{Folder, run};

/// `ca.pem`, and for `server` and `client` a `.pem` and a `.key`, in a folder.
pub struct Certificates(pub Folder);

impl Certificates {
    pub fn new() -> Self {
        let certificates = Self(Folder::new());
        Self::openssl(&format!(
            "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1 \
             -subj /CN=authority -keyout {} -out {}",
            certificates.path("ca.key"),
            certificates.path("ca.pem")
        ));
        for name in ["server", "client"] {
            certificates.sign(name);
        }
        certificates
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name)
    }

    fn sign(&self, name: &str) {
        let path = |ending: &str| self.path(&format!("{name}.{ending}"));
        fs::write(path("ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        Self::openssl(&format!(
            "req -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN={name} \
             -keyout {} -out {}",
            path("key"),
            path("request")
        ));
        Self::openssl(&format!(
            "x509 -req -days 1 -in {} -CA {} -CAkey {} -CAcreateserial -extfile {} -out {}",
            path("request"),
            self.path("ca.pem"),
            self.path("ca.key"),
            path("ext"),
            path("pem")
        ));
    }

    fn openssl(arguments: &str) {
        run(Command::new("openssl").args(arguments.split_whitespace()));
    }
}
