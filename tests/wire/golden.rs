//! The golden bytes of our protocol: what the items of `docs/protocol.md` look like on the wire.

/// The document that they stand in.
pub const PROTOCOL: &str = include_str!("../../docs/protocol.md");

/// What a client says: the readable form and the bytes.
pub const CLIENT: &[(&str, &str)] = &[
    (
        r#"[0, 1, bin 00 .. 0f, "worker-3", "db1", 4711]"#,
        "960001c410000102030405060708090a0b0c0d0e0fa8776f726b65722d33a3646231cd1267",
    ),
    ("[1, 7, 41]", "93010729"),
    (r#"[2, 41, 0, "openai"]"#, "94022900a66f70656e6169"),
    (
        r#"[2, 42, 5000000000, "rpm", 1, "tpm", 1200]"#,
        "97022acf000000012a05f200a372706d01a374706dcd04b0",
    ),
    (r#"[3, 43, nil, "tpm", 2000]"#, "95032bc0a374706dcd07d0"),
    (r#"[4, 44, 0, 800000000, "invoice:42"]"#, "95042c00ce2faf0800aa696e766f6963653a3432"),
    ("[5, 45, 7, 1450]", "94052d07cd05aa"),
    ("[6, 46, 8]", "93062e08"),
    ("[7, 42]", "92072a"),
    (r#"[8, 47, "openai", 30000000000]"#, "94082fa66f70656e6169cf00000006fc23ac00"),
    (r#"[9, 48, "openai", 3]"#, "940930a66f70656e616903"),
    (r#"[10, 49, "openai"]"#, "930a31a66f70656e6169"),
    (
        r#"[11, 50, "openai", "600/min", "20 at once"]"#,
        "950b32a66f70656e6169a73630302f6d696eaa3230206174206f6e6365",
    ),
    (r#"[12, 51, "openai", 100]"#, "940c33a66f70656e616964"),
    ("[13, 52, 9, 60]", "940d34093c"),
    ("[14]", "910e"),
    (
        r#"[15, 53, 0, 800000000, nil, 0, "invoice:42", 0]"#,
        "980f3500ce2faf0800c000aa696e766f6963653a343200",
    ),
    (
        r#"[15, 54, 5000000000, 30000000000, 3600000000000, 7, "index", 1, "slots", 3, 8, 2]"#,
        concat!(
            "9c0f36cf000000012a05f200cf00000006fc23ac00cf0000034630b8a00007a5696e64657801a573",
            "6c6f7473030802",
        ),
    ),
    (
        r#"[16, 55, 4294967305, 800000000, nil, 0, "index", 2]"#,
        "981037cf0000000100000009ce2faf0800c000a5696e64657802",
    ),
    (r#"[17, 56, "invoice:42", nil]"#, "941138aa696e766f6963653a3432c0"),
    (r#"[17, 57, "invoice:42", 4294967305]"#, "941139aa696e766f6963653a3432cf0000000100000009"),
    ("[18, 58, 0]", "93123a00"),
];

/// What a server says: the readable form and the bytes.
pub const SERVER: &[(&str, &str)] = &[
    ("[0, 1, 1000, 200000000]", "940001cd03e8ce0bebc200"),
    ("[1, 7]", "920107"),
    (
        r#"[2, 41, true, 4, 0, 800000000, "5/0.8s", 0, nil]"#,
        "990229c30400ce2faf0800a6352f302e387300c0",
    ),
    (
        r#"[2, 42, false, 0, nil, 800000000, "5/0.8s", 1, nil]"#,
        "99022ac200c0ce2faf0800a6352f302e387301c0",
    ),
    (r#"[2, 44, true, 0, 0, 0, "1 at once", 0, 8]"#, "99022cc3000000a931206174206f6e63650008"),
    ("[3, 42, 3]", "93032a03"),
    (r#"[4, 46, 6, "there is no lease 8"]"#, "94042e06b37468657265206973206e6f206c656173652038"),
    (r#"[4, nil, 7, "say hello first"]"#, "9404c007af7361792068656c6c6f206669727374"),
    ("[5, 49]", "920531"),
    (
        r#"[6, 51, 100, 6000000000, 9, 400, 0, 60000000000, "500/min", true]"#,
        "9a063364cf0000000165a0bc0009cd019000cf0000000df8475800a73530302f6d696ec3",
    ),
    (
        concat!(
            r#"[7, 58, nil, "index", 2, 4294967305, 5000000000, 800000000, "worker-3", "db1", "#,
            r#"4711, "slots", 3, 8, 2, nil, 1000000000, 2000000000, "worker-3", "db1", 4711]"#,
        ),
        concat!(
            "dc0015073ac0a5696e64657802cf0000000100000009cf000000012a05f200ce2faf0800a8776f72",
            "6b65722d33a3646231cd1267a5736c6f7473030802c0ce3b9aca00ce77359400a8776f726b65722d",
            "33a3646231cd1267",
        ),
    ),
    ("[8, 4294967305, 4294967306]", "9308cf0000000100000009cf000000010000000a"),
];

/// The bytes of a line of hexadecimal digits.
pub fn bytes(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
