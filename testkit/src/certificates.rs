//! Certificates of X.509 v1, which no library makes any more, out of such of v3.

/// One thing of DER: what it is with all that is in it, and the rest.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (header, length) = measure(bytes);
    bytes.split_at(header + length)
}

/// Bytes of tag and length, and of what follows.
fn measure(bytes: &[u8]) -> (usize, usize) {
    let first = usize::from(bytes[1]);
    if first < 0x80 {
        return (2, first);
    }
    let more = first & 0x7f;
    (2 + more, bytes[2..2 + more].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

fn content(bytes: &[u8]) -> &[u8] {
    let (header, length) = measure(bytes);
    &bytes[header..header + length]
}

/// Something with a length of two bytes.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut whole = vec![tag, 0x82];
    whole.extend((content.len() as u16).to_be_bytes());
    whole.extend(content);
    whole
}

/// The same certificate in v1: without what says the version and without extensions, signed anew by its authority.
pub fn as_v1(certificate: &[u8], sign: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let (tbs, rest) = split(content(certificate));
    let (algorithm, _) = split(rest);
    let (version, mut rest) = split(content(tbs));
    assert_eq!(version, [0xa0, 3, 2, 1, 2], "a certificate of v3");
    let mut parts = Vec::new();
    // Serial number, algorithm, issuer, validity, subject, key.
    for _ in 0..6 {
        let (part, after) = split(rest);
        parts.push(part);
        rest = after;
    }
    let tbs = der(0x30, &parts);
    let signature = der(3, &[&[0], &sign(&tbs)]);
    der(0x30, &[&tbs, algorithm, &signature])
}

/// The certificate as a file has it.
pub fn pem(certificate: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in certificate.chunks(48) {
        for three in line.chunks(3) {
            let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            for at in 0..4 {
                let letter = LETTERS[(bits >> (18 - 6 * at)) as usize & 63];
                text.push(if at > three.len() { '=' } else { char::from(letter) });
            }
        }
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}
