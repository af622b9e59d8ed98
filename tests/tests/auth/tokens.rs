//! JSON Web Tokens, as an issuer and as forgers make them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use nightcore_tests::{Connection, Stack, binaries};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, signature};

use crate::lock::{Lock, bearer, call, reload};

const SECRET: &str = "a secret of at least thirty-two bytes";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn token(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

/// Claims that expire so many seconds from now, and others.
fn claims(exp: i64, others: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let exp = i64::try_from(now).expect("a date") + exp;
    format!("{{\"exp\":{exp}{others}}}")
}

/// An issuer with a key of each public type.
struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

impl Issuer {
    fn new() -> Issuer {
        let pem = std::fs::read_to_string(binaries::in_tree("tests/keys/rsa_of_tests.pem"));
        let pem = pem.expect("it lies in the tree");
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let rsa = STANDARD.decode(text).expect("base64");
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let ec = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("randomness");
        Issuer {
            rsa: RsaKeyPair::from_pkcs8(&rsa).expect("a key"),
            ec: EcdsaKeyPair::from_pkcs8(algorithm, ec.as_ref(), &random).expect("a key"),
        }
    }

    fn rs256(&self, claims: &str) -> String {
        token(r#"{"alg":"RS256","kid":"r"}"#, claims, |message| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            let random = SystemRandom::new();
            let signed = self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
            signed.expect("a signature");
            signature
        })
    }

    fn es256(&self, claims: &str) -> String {
        token(r#"{"alg":"ES256","kid":"e"}"#, claims, |message| {
            let signed = self.ec.sign(&SystemRandom::new(), message);
            let signature: signature::Signature = signed.expect("a signature");
            signature.as_ref().to_vec()
        })
    }

    fn rsa_jwk(&self) -> String {
        let public = PublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let (n, e) = (encode(public.n), encode(public.e));
        format!(r#"{{"kty":"RSA","kid":"r","use":"sig","alg":"RS256","n":"{n}","e":"{e}"}}"#)
    }

    fn ec_jwk(&self) -> String {
        let point = self.ec.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        format!(r#"{{"kty":"EC","kid":"e","crv":"P-256","x":"{x}","y":"{y}"}}"#)
    }
}

fn start(lock: &Lock, lines: &str) -> Stack {
    let directory = lock.directory.path().display();
    lock.start_with(&format!("[auth.jwt]\n{}\n", lines.replace("DIR", &directory.to_string())))
}

#[track_caller]
fn refused(connection: &mut Connection, token: &str, words: &str) {
    let answer = call(connection, "echo", &bearer(token));
    answer.failure(401, "unauthorized");
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("invalid_token") && challenge.contains(words), "{challenge}");
}

#[test]
fn a_token_of_the_shared_secret_opens_until_it_expires() {
    let lock = Lock::new();
    lock.write("secret", format!("{SECRET}\n"));
    let stack = start(
        &lock,
        "secret_file = \"DIR/secret\"\nissuer = \"i\"\naudience = \"a\"\nleeway = \"0s\"",
    );
    let mut connection = stack.connect();
    let sign = |claims: &str| token(r#"{"alg":"HS256"}"#, claims, hs256(SECRET.as_bytes()));
    let ours = r#","iss":"i","aud":"a""#;
    let good = sign(&claims(600, ours));
    for _ in 0..3 {
        assert_eq!(call(&mut connection, "echo", &bearer(&good)).ok(), b"hi");
    }
    let bound = sign(&claims(600, &format!(r#"{ours},"functions":["ins*"]"#)));
    call(&mut connection, "echo", &bearer(&bound)).failure(403, "forbidden");
    assert_eq!(call(&mut connection, "inspect", &bearer(&bound)).status, 201);

    refused(&mut connection, &sign(&claims(-1, ours)), "has expired");
    let later = claims(600, &format!(r#"{ours},"nbf":99999999999"#));
    refused(&mut connection, &sign(&later), "not valid yet");
    for others in ["", r#","iss":"i""#, r#","iss":"x","aud":"a""#, r#","iss":"i","aud":"x""#] {
        refused(&mut connection, &sign(&claims(600, others)), "is not valid");
    }
    let by_other = hs256(b"another secret of thirty-two bytes or so");
    refused(
        &mut connection,
        &token(r#"{"alg":"HS256"}"#, &claims(600, ours), by_other),
        "not valid",
    );
    refused(&mut connection, &good[..good.len() - 3], "not valid");
    // The time in which a token is good ends also for one that was let in before.
    let brief = sign(&claims(2, ours));
    let answers = || call(&mut stack.connect(), "echo", &bearer(&brief)).status;
    nightcore_tests::wait_until("the token has expired", || answers() == 401);
    assert_eq!(call(&mut connection, "echo", &bearer(&good)).ok(), b"hi");
}

#[test]
fn tokens_of_a_key_set_are_verified_by_their_own_algorithm_alone() {
    let (lock, issuer) = (Lock::new(), Issuer::new());
    let set = format!(r#"{{"keys":[{},{}]}}"#, issuer.rsa_jwk(), issuer.ec_jwk());
    lock.write("jwks.json", &set);
    let stack = start(&lock, "jwks_file = \"DIR/jwks.json\"");
    let mut connection = stack.connect();
    let good = claims(600, r#","sub":"anna""#);
    for token in [issuer.rs256(&good), issuer.es256(&good)] {
        assert_eq!(call(&mut connection, "echo", &bearer(&token)).ok(), b"hi");
    }
    refused(&mut connection, &issuer.rs256(&claims(-60, "")), "has expired");
    refused(&mut connection, &issuer.es256(&claims(-60, "")), "has expired");
    refused(&mut connection, &Issuer::new().es256(&good), "not valid");

    for algorithm in ["none", "None", "HS256"] {
        let header = format!("{{\"alg\":\"{algorithm}\"}}");
        refused(&mut connection, &token(&header, &good, |_| Vec::new()), "not valid");
    }
    // What everybody knows must not become a shared secret.
    let modulus = PublicKeyComponents::<Vec<u8>>::from(issuer.rsa.public()).n;
    for public in [modulus, set.into_bytes(), issuer.ec.public_key().as_ref().to_vec()] {
        for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","kid":"r"}"#] {
            refused(&mut connection, &token(header, &good, hs256(&public)), "not valid");
        }
    }
}

#[test]
fn a_token_is_not_accepted_any_more_when_its_signer_is_gone() {
    let (lock, issuer) = (Lock::new(), Issuer::new());
    let (rsa, ec) = (issuer.rsa_jwk(), issuer.ec_jwk());
    lock.write("jwks.json", format!(r#"{{"keys":[{rsa},{ec}]}}"#));
    let stack = start(&lock, "jwks_file = \"DIR/jwks.json\"");
    let mut connection = stack.connect();
    let tokens = [issuer.rs256(&claims(600, "")), issuer.es256(&claims(600, ""))];
    for token in &tokens {
        assert_eq!(call(&mut connection, "echo", &bearer(token)).ok(), b"hi");
    }
    lock.write("jwks.json", format!(r#"{{"keys":[{ec}]}}"#));
    assert_eq!(reload(&stack).0, Some(0));
    refused(&mut connection, &tokens[0], "not valid");
    assert_eq!(call(&mut connection, "echo", &bearer(&tokens[1])).ok(), b"hi");

    lock.write("jwks.json", "{}");
    let (code, text) = reload(&stack);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("[auth]: failed: as before: "), "{text}");
    assert_eq!(call(&mut connection, "echo", &bearer(&tokens[1])).ok(), b"hi");
}
