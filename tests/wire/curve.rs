//! CURVE: golden bytes of another implementation and of libzmq, and a peer that does not play fair.

use crypto_box::aead::AeadInPlace;
use crypto_box::{Nonce, PublicKey, SalsaBox, SecretKey, Tag};
use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::access::KeyPair;
use zmqlocker::wire::Frames;
use zmqlocker::wire::curve::{Curve, Keys, OVERHEAD_BYTES, RANDOM_BYTES};
use zmqlocker::wire::seed::{BYTES_MAX, FRAMES_MAX};
use zmqlocker::wire::zmtp::{Connection, Item, OPENING, ZmtpError};

// A client over PyNaCl (libsodium), with the server's secret 01.., its own 02.., its secret of the
// connection 03.. and the nonce of its vouch 04.., and what libzmq 4.3.5 answered to it.
const HELLO: &str = "\
    0548454c4c4f0100000000000000000000000000000000000000000000000000000000000000000000000000\
    0000000000000000000000000000000000000000000000000000000000000000000000005dfedd3b6bd47f6f\
    a28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef220000000000000001cb2381916e946e2ee6849a26\
    d1c7be76bd4bf97083e52852897e696b8989c72f1b1955bdab8b6affeae1a4cf4a9267f383ae105aaad2c991\
    79bdc7978c5a195bcd8e510261fbee5db7e05c017156fa31";
const WELCOME: &str = "\
    0757454c434f4d453dbe6aaddfe159c4e7f95ee53d1095772f229f6ed0601ce9344ba5b42e8adab2da00bb77\
    a29015c55e43b0a03cdef92a15f3cdf7555e33ad0122a7ead1837494b400df9fcf0f362d94d39a97e328cfd3\
    d4c97e8001beac394523eb5e706f9f8da290067a0cd4f053ce69493c66dba0a01ab73c32298d3e8da0ad7fd3\
    18686ce7501720a37f03ec4b9ea01d0cb295ee213bd66465c72290f5b20b5d89525ccab6";
const INITIATE: &str = "\
    08494e49544941544525263285f5e9b7b5f9792e16b699fe9b8e383203ba1a8d31f18cd76f2225bfc40f89cb\
    79217df159204eef581d329cdb891e01dfcfadec8df83dd8623e231ce9a670f3bc204bb7efe23e77bc0cd0d0\
    a7546275ee701d23895cd81bc6f287dd780000000000000002c38b0e4cd1680ae4d7e9c3c8e1106d1302e793\
    f09fb8df3502b2617481e161921683ffd832477be25b53ab0502ce8b5a4b9cc32d53e7d2d12f49967af09cc6\
    856781adc4726b5f918b074fa9d2568cc3f7e7f9487a1391147d874a2b70631f11975064b33711af6dc410e5\
    2e0a349bfa49fc8834a94001cddf48b58cd9a21d4a782a19f2bcbe1863335c20c6bb7662081805f437e5fc99\
    d2fc984295a6c2702109de1b9658af";
const READY: &str = "\
    0552454144590000000000000001c90d75900973dc0e7b8bbbf6f9a53997d357803609c90d92571909812291\
    c5252f209934e8a9a0818d62d531f970014777c557";
const SENT: &str = "\
    074d4553534147450000000000000003cfb996e2792162fe3f775dd57be84ed6b25bc147bcc753de1bac";
const FIRST: &str = "\
    074d455353414745000000000000000241983a436ff0fa81129dd1a149e816456e";
const SECOND: &str = "\
    074d4553534147450000000000000003d0550f5ae880f97022307206a58b6a2fba9490";

fn bytes(hex: &str) -> Vec<u8> {
    let hex: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.chunks(2).map(byte).collect()
}

fn client() -> Curve {
    let server = KeyPair::of_secret([1; 32]).public();
    let keys = Keys { server, client: KeyPair::of_secret([2; 32]) };
    let mut random = [3; RANDOM_BYTES];
    random[32..].fill(4);
    Curve::new(keys, &random)
}

#[test]
fn the_golden_bytes() {
    let mut curve = client();
    assert_eq!(curve.hello(), bytes(HELLO));
    assert_eq!(curve.initiate(&bytes(WELCOME)).unwrap(), bytes(INITIATE));
    curve.take_ready(&bytes(READY)).unwrap();
    assert_eq!(curve.seal(0, b"let me go"), bytes(SENT));
    assert_eq!(curve.open(&bytes(FIRST)).unwrap(), (1, Vec::new()));
    assert_eq!(curve.open(&bytes(SECOND)).unwrap(), (0, b"go".to_vec()));
    assert_eq!(bytes(SENT).len(), b"let me go".len() + OVERHEAD_BYTES);
}

#[test]
fn no_box_is_opened_twice_or_out_of_order_or_changed() {
    let mut curve = client();
    curve.hello();
    curve.initiate(&bytes(WELCOME)).unwrap();
    curve.take_ready(&bytes(READY)).unwrap();
    assert_eq!(curve.take_ready(&bytes(READY)), Err(ZmtpError::Malformed));
    let second = bytes(SECOND);
    for place in 0..second.len() {
        let mut changed = second.clone();
        changed[place] ^= 1;
        assert_eq!(curve.open(&changed), Err(ZmtpError::Malformed), "{place}");
    }
    assert_eq!(curve.open(&second).unwrap().1, b"go");
    for sealed in [bytes(SECOND), bytes(FIRST), bytes(SENT), bytes(READY)] {
        assert_eq!(curve.open(&sealed), Err(ZmtpError::Malformed));
    }
}

#[test]
fn nothing_is_opened_before_the_server_has_shown_its_key() {
    let mut curve = client();
    curve.hello();
    assert_eq!(curve.take_ready(&bytes(READY)), Err(ZmtpError::Malformed));
    assert_eq!(curve.open(&bytes(FIRST)), Err(ZmtpError::Malformed));
    let mut forged = bytes(WELCOME);
    forged[30] ^= 1;
    assert_eq!(curve.initiate(&forged), Err(ZmtpError::ServerKey));
    assert_eq!(curve.initiate(&bytes(WELCOME)[..100]), Err(ZmtpError::Malformed));
}

/// A server's side, with keys of its own: as much of it as the tests need.
struct Peer {
    between: SalsaBox,
    welcome: Vec<u8>,
    counter: u64,
}

fn nonce(prefix: &[u8], rest: &[u8]) -> Nonce {
    *Nonce::from_slice(&[prefix, rest].concat())
}

fn sealed(between: &SalsaBox, nonce: &Nonce, plain: &[u8]) -> Vec<u8> {
    let mut plain = plain.to_vec();
    let tag = between.encrypt_in_place_detached(nonce, b"", &mut plain).unwrap();
    [tag.as_slice(), &plain].concat()
}

impl Peer {
    fn new() -> Self {
        let (long, short) = (SecretKey::from([1; 32]), SecretKey::from([9; 32]));
        let client: PublicKey = SecretKey::from([3; 32]).public_key();
        let plain = [short.public_key().as_bytes().as_slice(), &[7; 96]].concat();
        let welcome = sealed(&SalsaBox::new(&client, &long), &nonce(b"WELCOME-", &[5; 16]), &plain);
        let welcome = [b"\x07WELCOME".as_slice(), &[5; 16], &welcome].concat();
        Self { between: SalsaBox::new(&client, &short), welcome, counter: 0 }
    }

    fn next(&mut self, command: &[u8], prefix: &[u8], plain: &[u8]) -> Vec<u8> {
        self.counter += 1;
        let counter = self.counter.to_be_bytes();
        [command, &counter, &sealed(&self.between, &nonce(prefix, &counter), plain)].concat()
    }

    fn message(&mut self, flags: u8, body: &[u8]) -> Vec<u8> {
        let plain = [&[flags], body].concat();
        frame(0, &self.next(b"\x07MESSAGE", b"CurveZMQMESSAGES", &plain))
    }

    /// What a client has sealed as its message number `counter`, counted from 1.
    fn open(&self, sealed: &[u8], counter: u64) -> Vec<u8> {
        let body = sealed.strip_prefix(b"\x07MESSAGE").unwrap();
        // The hello and the initiate have the first two nonces.
        let counter = (counter + 2).to_be_bytes();
        let body = body.strip_prefix(&counter).unwrap();
        let (tag, inner) = body.split_first_chunk::<16>().unwrap();
        let mut plain = inner.to_vec();
        let nonce = nonce(b"CurveZMQMESSAGEC", &counter);
        let tag = Tag::from(*tag);
        self.between.decrypt_in_place_detached(&nonce, b"", &mut plain, &tag).unwrap();
        plain
    }
}

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    match u8::try_from(body.len()) {
        Ok(size) => [&[flags, size], body].concat(),
        Err(_) => [&[flags | 2], (body.len() as u64).to_be_bytes().as_slice(), body].concat(),
    }
}

fn greeting() -> Vec<u8> {
    let mut greeting = [OPENING, b"\x01CURVE"].concat();
    greeting.resize(64, 0);
    greeting
}

/// A peer, and all that it says up to `READY`.
fn handshake() -> (Peer, Vec<u8>) {
    let mut peer = Peer::new();
    let ready = peer.next(b"\x05READY", b"CurveZMQREADY---", b"\x0bSocket-Type\0\0\0\x06ROUTER");
    let said = [greeting(), frame(4, &peer.welcome), frame(4, &ready)].concat();
    (peer, said)
}

fn hear(bytes: &[u8], size: usize) -> Result<(Connection, Vec<Item>), ZmtpError> {
    let mut connection = Connection::encrypted(client());
    let mut items = Vec::new();
    for piece in bytes.chunks(size) {
        connection.push(piece);
        while let Some(item) = connection.poll_item()? {
            items.push(item);
        }
    }
    Ok((connection, items))
}

#[test]
fn a_conversation_is_understood_however_it_is_cut() {
    let (mut peer, mut said) = handshake();
    said.extend(peer.message(2, b"\x04PING\0\x01abc"));
    said.extend(peer.message(2, b"\x03NEW"));
    for (flags, body) in [(1, b"7".as_slice()), (1, b""), (0, &[b'x'; 300])] {
        said.extend(peer.message(flags, body));
    }
    for size in [1, 2, 7, 63, 64, 65, 300, said.len()] {
        let (_, items) = hear(&said, size).unwrap();
        let [Item::Answer(hello), Item::Answer(initiate), Item::Ready, pong, message] = &*items
        else {
            panic!("{items:?}")
        };
        assert_eq!(hello[..6], *b"\x01CURVE");
        assert_eq!(hello[53..], frame(4, &bytes(HELLO)));
        assert_eq!(initiate[9..18], *b"\x08INITIATE");
        let Item::Answer(pong) = pong else { panic!("{pong:?}") };
        assert_eq!(peer.open(&pong[2..], 1), b"\x02\x04PONGabc");
        let expected = [b"7".as_slice(), b"", &[b'x'; 300]].into_iter().collect();
        assert_eq!(*message, Item::Message(expected));
    }
}

#[test]
fn strangers_are_told_apart() {
    let (mut peer, said) = handshake();
    let plain = |mechanism: &[u8]| {
        let mut greeting = [OPENING, b"\x01", mechanism].concat();
        greeting.resize(64, 0);
        greeting
    };
    let mut unknown = Peer::new();
    unknown.welcome[40] ^= 1;
    let message = peer.message(1, b"x");
    let flagged = [&[1], &message[1..]].concat();
    let cases = [
        (plain(b"NULL"), ZmtpError::NoKey),
        (plain(b"PLAIN"), ZmtpError::Mechanism("PLAIN".to_owned())),
        ([greeting(), frame(4, &unknown.welcome)].concat(), ZmtpError::ServerKey),
        ([greeting(), frame(4, b"\x05READY")].concat(), ZmtpError::Malformed),
        ([greeting(), frame(0, b"go")].concat(), ZmtpError::Malformed),
        (
            [greeting(), frame(4, &Peer::new().welcome), frame(4, b"\x05ERROR\x03400")].concat(),
            ZmtpError::NotLetIn,
        ),
        (
            [greeting(), frame(4, &Peer::new().welcome), frame(4, b"\x05ERROR\x03500")].concat(),
            ZmtpError::Refused("500".to_owned()),
        ),
        // Behind the handshake, what is not in a box is not heard.
        ([said.clone(), frame(0, b"go")].concat(), ZmtpError::Malformed),
        ([said.clone(), frame(4, b"\x04PING\0\x01abc")].concat(), ZmtpError::Malformed),
        ([said.clone(), flagged].concat(), ZmtpError::Malformed),
        ([said, frame(0, &vec![0; BYTES_MAX + OVERHEAD_BYTES + 1])].concat(), ZmtpError::Size),
    ];
    for (bytes, error) in cases {
        for size in [1, 7, bytes.len()] {
            assert_eq!(hear(&bytes, size).unwrap_err(), error);
        }
    }
    assert!(ZmtpError::ServerKey.is_denial() && ZmtpError::NotLetIn.is_denial());
    assert!(!ZmtpError::Malformed.is_denial() && !ZmtpError::NotZmtp.is_denial());
}

#[test]
fn the_longest_message_fits_and_one_byte_more_does_not() {
    for (size, fits) in [(BYTES_MAX, true), (BYTES_MAX + 1, false)] {
        let (mut peer, mut said) = handshake();
        said.extend(peer.message(0, &vec![b'x'; size]));
        let heard = hear(&said, said.len());
        assert_eq!(
            heard.map(|(_, items)| items.len()),
            if fits { Ok(4) } else { Err(ZmtpError::Size) }
        );
    }
}

#[test]
fn no_two_boxes_of_a_connection_have_one_nonce() {
    let (peer, said) = handshake();
    let (mut connection, _) = hear(&said, said.len()).unwrap();
    let mut out = Vec::new();
    for number in 1..=300_u64 {
        out.clear();
        let message: Frames = [b"x".as_slice()].into_iter().collect();
        connection.write_message(&mut out, &message);
        assert_eq!(peer.open(&out[2..], number), b"\0x");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_sealed_is_opened(
        messages in vec(vec(vec(any::<u8>(), 0..600), 1..=FRAMES_MAX), 0..4),
        size in 1..2000_usize,
    ) {
        let (mut peer, mut said) = handshake();
        for message in &messages {
            for (place, body) in message.iter().enumerate() {
                said.extend(peer.message(u8::from(place + 1 < message.len()), body));
            }
        }
        let (_, items) = hear(&said, size).unwrap();
        let expected = messages.iter().map(|message| message.iter().map(Vec::as_slice).collect());
        prop_assert_eq!(&items[3..], &expected.map(Item::Message).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_end_in_an_item_an_error_or_a_wait(
        traffic in vec(any::<u8>(), 0..300),
        behind in 0..3_usize,
        size in 1..300_usize,
    ) {
        let before = [Vec::new(), greeting(), handshake().1];
        let said = [before[behind].as_slice(), &traffic].concat();
        let items = |size| hear(&said, size).map(|(_, items)| items);
        prop_assert_eq!(items(size), items(said.len().max(1)));
    }
}
