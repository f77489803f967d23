//! Builds libzmq from source with CURVE, and with what `zeromq-src` leaves out of the platform.

use std::env;

/// What libzmq's own `configure` finds on Linux. `zeromq-src` writes an empty platform header, so
/// without these threads would signal through socket pairs, and the options for TCP keep-alive
/// would be accepted and ignored.
const LINUX_FEATURES: [&str; 11] = [
    "ZMQ_HAVE_EVENTFD",
    "ZMQ_HAVE_EVENTFD_CLOEXEC",
    "ZMQ_HAVE_SOCK_CLOEXEC",
    "ZMQ_HAVE_O_CLOEXEC",
    "ZMQ_HAVE_SO_KEEPALIVE",
    "ZMQ_HAVE_TCP_KEEPCNT",
    "ZMQ_HAVE_TCP_KEEPIDLE",
    "ZMQ_HAVE_TCP_KEEPINTVL",
    "ZMQ_HAVE_SO_PEERCRED",
    "ZMQ_HAVE_GETRANDOM",
    "ZMQ_HAVE_PTHREAD_SETNAME_2",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = env::var("TARGET").expect("Cargo names the target");
    // Where the compiler's flags are looked for; the first name that is set counts.
    let names = [
        format!("CXXFLAGS_{target}"),
        format!("CXXFLAGS_{}", target.replace('-', "_")),
        "TARGET_CXXFLAGS".to_owned(),
        "CXXFLAGS".to_owned(),
    ];
    for name in &names {
        println!("cargo:rerun-if-env-changed={name}");
    }
    if target.contains("linux") {
        let mut flags = names.iter().find_map(|name| env::var(name).ok()).unwrap_or_default();
        for feature in LINUX_FEATURES {
            flags.push_str(&format!(" -D{feature}=1"));
        }
        env::set_var(&names[0], flags);
    }
    let include = env::var("DEP_SODIUM_INCLUDE").expect("libsodium's build names its headers");
    let lib = env::var("DEP_SODIUM_LIB").expect("libsodium's build names its library");
    zeromq_src::Build::new()
        .with_libsodium(Some(zeromq_src::LibLocation::new(lib, include)))
        .build();
}
