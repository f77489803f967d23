//! What peers want to be called: no name keeps anybody from being heard.

use zmq::{Context, DEALER, ROUTER, Socket};

const PATIENCE_MS: i32 = 20_000;

/// A server and where it is.
fn serve(context: &Context) -> (Socket, String) {
    let server = context.socket(ROUTER).unwrap();
    server.set_rcvtimeo(PATIENCE_MS).unwrap();
    server.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = server.get_last_endpoint().unwrap().unwrap();
    (server, endpoint)
}

/// A peer of that name; of none if it is empty.
fn peer(context: &Context, endpoint: &str, name: &[u8]) -> Socket {
    let peer = context.socket(DEALER).unwrap();
    peer.set_linger(0).unwrap();
    peer.set_rcvtimeo(PATIENCE_MS).unwrap();
    if !name.is_empty() {
        peer.set_identity(name).unwrap();
    }
    peer.connect(endpoint).unwrap();
    peer
}

/// Has the peer ask and the server answer. What the server calls it.
fn served(server: &Socket, peer: &Socket) -> Vec<u8> {
    peer.send("asked", 0).unwrap();
    let asked = server.recv_multipart(0).unwrap();
    assert_eq!(asked[1], b"asked");
    server.send_multipart([&asked[0][..], b"answered"], 0).unwrap();
    assert_eq!(peer.recv_bytes(0).unwrap(), b"answered");
    asked[0].clone()
}

#[test]
fn peers_whose_name_is_taken_are_served() {
    let context = Context::new();
    let (server, endpoint) = serve(&context);
    let come = |()| {
        let peer = peer(&context, &endpoint, b"other");
        let name = served(&server, &peer);
        (peer, name)
    };
    let come = [(), (), ()].map(come);
    let names = come.each_ref().map(|(_, name)| name.as_slice());
    assert_eq!(names[0], b"other");
    assert!(names[1] != names[0] && names[2] != names[0] && names[1] != names[2], "{names:?}");
    // Each is served on.
    assert!(come.iter().all(|(peer, name)| served(&server, peer) == *name));
}

#[test]
fn a_name_that_the_server_is_about_to_give_is_not_taken() {
    let context = Context::new();
    let (server, endpoint) = serve(&context);
    let first = peer(&context, &endpoint, b"");
    let given = served(&server, &first);
    let number = u32::from_be_bytes(given[1..].try_into().unwrap());
    // It says what the next but one would be called.
    let claim = [&[0], &number.wrapping_add(2).to_be_bytes()[..]].concat();
    let claiming = peer(&context, &endpoint, &claim);
    let mut names = vec![given, served(&server, &claiming)];
    let others = [b"", b"", b""].map(|name| peer(&context, &endpoint, name));
    names.extend(others.each_ref().map(|peer| served(&server, peer)));
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5);
}
