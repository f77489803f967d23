//! Builds libzmq from source with CURVE, and with what `zeromq-src` leaves out of the platform.
//!
//! One place of the source is changed on its way to the compiler, for which this program takes the
//! compiler's place.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

/// Names the compiler whose place is taken.
const COMPILER: &str = "ZMQ_SYS_COMPILER";

/// A peer may say what it wants to be called. As published, a server never hears of one whose name
/// is taken, and keeps its connection for ever; and it aborts when it gives a name itself that a
/// peer has said before. Now it gives such a peer a name, as it gives one to all who say none.
/// Those that it gives begin with a zero.
const AS_PUBLISHED: &str = "if (msg.size () == 0) {";
const AS_BUILT: &str = "const unsigned char *const said =
          static_cast<unsigned char *> (msg.data ());
        if (msg.size () == 0 || said[0] == 0 || has_out_pipe (blob_t (said, msg.size ()))) {";

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

fn main() -> ExitCode {
    if let Some(compiler) = env::var_os(COMPILER) {
        let mut compile = Command::new(compiler);
        compile.args(env::args_os().skip(1).map(changed));
        let status = compile.status().expect("the compiler runs");
        return ExitCode::from(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1));
    }
    build();
    ExitCode::SUCCESS
}

/// An argument of the compiler; if it is the file to be changed, the changed one.
fn changed(argument: OsString) -> OsString {
    if !Path::new(&argument).ends_with("src/router.cpp") {
        return argument;
    }
    let source = fs::read_to_string(&argument).expect("libzmq's source can be read");
    assert_eq!(source.matches(AS_PUBLISHED).count(), 1, "libzmq names its peers in another way");
    let path = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo names it")).join("router.cpp");
    fs::write(&path, source.replace(AS_PUBLISHED, AS_BUILT)).expect("OUT_DIR can be written");
    path.into()
}

fn build() {
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
    let compiler = cc::Build::new().cpp(true).get_compiler();
    env::set_var(COMPILER, compiler.path());
    let this = env::current_exe().expect("the system names this program");
    env::set_var(format!("CXX_{target}"), this);
    let include = env::var("DEP_SODIUM_INCLUDE").expect("libsodium's build names its headers");
    let lib = env::var("DEP_SODIUM_LIB").expect("libsodium's build names its library");
    zeromq_src::Build::new()
        .with_libsodium(Some(zeromq_src::LibLocation::new(lib, include)))
        .build();
}
