//! Tokens of each algorithm, and what must not be taken for one.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, signature};

use super::super::client::Resource;
use super::super::source::SigningKeys;
use super::*;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
/// Of tests alone.
const RSA_PEM: &str = include_str!("../../../tests/keys/rsa_of_tests.pem");

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn source() -> JwtSource {
    JwtSource {
        keys: SigningKeys::Secret("unused".into()),
        issuer: None,
        audience: None,
        leeway: Duration::from_secs(30),
    }
}

fn rsa() -> RsaKeyPair {
    let base64: String = RSA_PEM.lines().filter(|line| !line.starts_with('-')).collect();
    RsaKeyPair::from_pkcs8(&STANDARD.decode(base64).unwrap()).unwrap()
}

fn rsa_jwk(pair: &RsaKeyPair, kid: &str) -> String {
    let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
    let (n, e) = (encode(public.n), encode(public.e));
    format!(r#"{{"kty":"RSA","alg":"RS256","use":"sig","kid":"{kid}","n":"{n}","e":"{e}"}}"#)
}

fn ec() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap()
}

fn ec_jwk(pair: &EcdsaKeyPair, kid: &str) -> String {
    let point = pair.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    format!(r#"{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{x}","y":"{y}"}}"#)
}

fn sign_with(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

fn rs256(pair: &RsaKeyPair) -> impl Fn(&[u8]) -> Vec<u8> {
    |message| {
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }
}

fn es256(pair: &EcdsaKeyPair) -> impl Fn(&[u8]) -> Vec<u8> {
    |message| {
        let signature: signature::Signature = pair.sign(&SystemRandom::new(), message).unwrap();
        signature.as_ref().to_vec()
    }
}

fn set(jwks: &[String]) -> TokenVerifier {
    let text = format!("{{\"keys\":[{}]}}", jwks.join(","));
    TokenVerifier::new(KeySet::parse(text.as_bytes()).unwrap(), &source())
}

fn secret() -> TokenVerifier {
    TokenVerifier::new(KeySet::of_secret(SECRET).unwrap(), &source())
}

fn claims() -> String {
    format!("{{\"exp\":{}}}", NOW + 60)
}

/// What becomes of claims in a token of the shared secret.
fn judge(verifier: &TokenVerifier, claims: &str) -> Result<Verified, AuthReject> {
    let token = sign_with(r#"{"alg":"HS256"}"#, claims, hs256(SECRET));
    verifier.verify(token.as_bytes(), NOW)
}

fn refused(verifier: &TokenVerifier, token: &str) {
    assert_eq!(verifier.verify(token.as_bytes(), NOW).unwrap_err(), AuthReject::Invalid, "{token}");
}

#[test]
fn a_token_of_each_algorithm_is_verified_by_its_own_key_alone() {
    let (rsa, ec, other) = (rsa(), ec(), ec());
    let set = set(&[rsa_jwk(&rsa, "r"), ec_jwk(&ec, "e")]);
    let by_rsa = sign_with(r#"{"alg":"RS256","kid":"r"}"#, &claims(), rs256(&rsa));
    let by_ec = sign_with(r#"{"alg":"ES256","kid":"e"}"#, &claims(), es256(&ec));
    let unnamed = sign_with(r#"{"alg":"ES256"}"#, &claims(), es256(&ec));
    for token in [&by_rsa, &by_ec, &unnamed] {
        let verified = set.verify(token.as_bytes(), NOW).unwrap();
        assert_eq!(verified.expires_s, NOW + 60 + 30);
        refused(&secret(), token);
    }
    refused(&set, &sign_with(r#"{"alg":"ES256","kid":"e"}"#, &claims(), es256(&other)));
    refused(&set, &sign_with(r#"{"alg":"ES256","kid":"r"}"#, &claims(), es256(&ec)));
    refused(&set, &sign_with(r#"{"alg":"RS256","kid":"x"}"#, &claims(), rs256(&rsa)));
    let by_secret = sign_with(r#"{"alg":"HS256"}"#, &claims(), hs256(SECRET));
    assert!(secret().verify(by_secret.as_bytes(), NOW).is_ok());
    refused(&set, &by_secret);
}

#[test]
fn a_public_key_is_never_taken_for_a_shared_secret() {
    let rsa = rsa();
    let jwk = rsa_jwk(&rsa, "r");
    let set = set(std::slice::from_ref(&jwk));
    let public = PublicKeyComponents::<Vec<u8>>::from(rsa.public());
    let secrets = [
        public.n.clone(),
        encode(&public.n).into_bytes(),
        jwk.into_bytes(),
        rsa.public().as_ref().to_vec(),
    ];
    for secret in secrets {
        for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","kid":"r"}"#] {
            refused(&set, &sign_with(header, &claims(), hs256(&secret)));
        }
    }
}

#[test]
fn no_signature_no_other_algorithm_and_no_key_of_the_tokens_own_is_accepted() {
    let ec = ec();
    let set = set(&[ec_jwk(&ec, "e")]);
    let own = ec_jwk(&ec, "e");
    for verifier in [&set, &secret()] {
        for algorithm in ["none", "None", "NONE", "", "HS384", "ES384", "PS256", "EdDSA", "RS512"] {
            let header = format!("{{\"alg\":\"{algorithm}\"}}");
            refused(verifier, &sign_with(&header, &claims(), |_| Vec::new()));
            refused(verifier, &sign_with(&header, &claims(), hs256(SECRET)));
        }
    }
    let stranger = self::ec();
    let header = format!(r#"{{"alg":"ES256","jwk":{own}}}"#);
    refused(&set, &sign_with(&header, &claims(), es256(&stranger)));
    let critical = r#"{"alg":"ES256","crit":["b64"],"b64":false}"#;
    refused(&set, &sign_with(critical, &claims(), es256(&ec)));
}

#[test]
fn a_token_is_valid_from_nbf_to_exp_with_leeway() {
    let verifier = secret();
    let at = |exp: i64, nbf: i64| {
        let now = i64::try_from(NOW).unwrap();
        judge(&verifier, &format!("{{\"exp\":{},\"nbf\":{}}}", now + exp, now + nbf)).map(|_| ())
    };
    assert_eq!(at(60, -60), Ok(()));
    assert_eq!(at(-29, -60), Ok(()), "within the leeway");
    assert_eq!(at(-30, -60), Err(AuthReject::Expired));
    assert_eq!(at(60, 30), Ok(()), "within the leeway");
    assert_eq!(at(60, 31), Err(AuthReject::Early));
    assert_eq!(judge(&verifier, &format!("{{\"exp\":{}.5}}", NOW + 1)).map(|_| ()), Ok(()));
}

#[test]
fn a_claim_that_is_missing_or_malformed_makes_a_token_none() {
    let exp = NOW + 60;
    for claims in [
        "{}".to_owned(),
        "[]".to_owned(),
        String::new(),
        r#"{"exp":null}"#.to_owned(),
        format!("{{\"exp\":\"{exp}\"}}"),
        r#"{"exp":-1}"#.to_owned(),
        r#"{"exp":1e999}"#.to_owned(),
        format!("{{\"exp\":{exp},\"exp\":{exp}}}"),
        format!("{{\"exp\":{exp},\"nbf\":\"0\"}}"),
        format!("{{\"exp\":{exp},\"nbf\":-1}}"),
        format!("{{\"exp\":{exp},\"sub\":7}}"),
        format!("{{\"exp\":{exp},\"sub\":\"{}\"}}", "s".repeat(257)),
        format!("{{\"exp\":{exp},\"functions\":\"f\"}}"),
        format!("{{\"exp\":{exp},\"functions\":[\"a b\"]}}"),
        format!("{{\"exp\":{exp},\"aud\":\"somebody else\"}}"),
    ] {
        assert_eq!(judge(&secret(), &claims).unwrap_err(), AuthReject::Invalid, "{claims}");
    }
}

#[test]
fn issuer_and_audience_are_demanded_where_they_are_configured() {
    let source = JwtSource { issuer: Some("i".into()), audience: Some("a".into()), ..source() };
    let verifier = TokenVerifier::new(KeySet::of_secret(SECRET).unwrap(), &source);
    let exp = NOW + 60;
    for (rest, is_valid) in [
        (r#""iss":"i","aud":"a""#, true),
        (r#""iss":"i","aud":["b","a"]"#, true),
        (r#""iss":"i","aud":["b"]"#, false),
        (r#""iss":"i","aud":7"#, false),
        (r#""iss":"i""#, false),
        (r#""iss":"x","aud":"a""#, false),
        (r#""aud":"a""#, false),
    ] {
        let claims = format!("{{\"exp\":{exp},{rest}}}");
        assert_eq!(judge(&verifier, &claims).is_ok(), is_valid, "{claims}");
    }
}

#[test]
fn subject_and_functions_become_identity_and_scope() {
    let exp = NOW + 60;
    let claims = format!(r#"{{"exp":{exp},"sub":"anna","functions":["f","g*"]}}"#);
    let client = judge(&secret(), &claims).unwrap().client;
    assert_eq!(client.identity(), &Identity::Token { subject: Some("anna".into()) });
    assert!(client.authorize(Resource::Function(b"g1")).is_ok());
    assert_eq!(client.authorize(Resource::Function(b"h")), Err(AuthReject::Forbidden));
    assert_eq!(client.authorize(Resource::Own), Err(AuthReject::Forbidden));
    let client = judge(&secret(), &self::claims()).unwrap().client;
    assert_eq!(client.identity(), &Identity::Token { subject: None });
    assert!(client.authorize(Resource::Own).is_ok());
}

#[test]
fn a_key_set_without_a_usable_key_or_with_a_broken_one_is_refused() {
    let (rsa, ec) = (rsa(), ec());
    let (rsa, ec) = (rsa_jwk(&rsa, "k"), ec_jwk(&ec, "k"));
    let parse = |keys: &[&str]| {
        let text = format!("{{\"keys\":[{}]}}", keys.join(","));
        KeySet::parse(text.as_bytes()).map(|_| ()).map_err(|error| error.to_string())
    };
    let foreign = [
        r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.to_owned(),
        r#"{"kty":"oct","k":"AAAA"}"#.to_owned(),
        ec.replace("P-256", "P-384"),
        rsa.replace("RS256", "PS256"),
        rsa.replace("\"sig\"", "\"enc\""),
    ];
    for key in &foreign {
        assert_eq!(parse(&[key, &rsa]), Ok(()), "{key}");
        assert_eq!(parse(&[key]), Err("no key is for RS256 or ES256".to_owned()), "{key}");
    }
    assert_eq!(parse(&[&rsa, &ec]), Ok(()), "of two types");
    assert_eq!(parse(&[&ec, &ec]), Err("two keys of one type have the same kid".to_owned()));
    let private = ec.replace("\"kty\"", "\"d\":\"AA\",\"kty\"");
    assert!(parse(&[&rsa, &private]).unwrap_err().starts_with("key 2: this is a private key"));
    let short = r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#;
    assert!(parse(&[short]).unwrap_err().contains("2048 to 8192 bits"));
    assert!(parse(&[r#"{"kty":"RSA","n":"+","e":"AQAB"}"#]).unwrap_err().contains("base64url"));
    assert!(
        parse(&[r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#]).unwrap_err().contains("32")
    );
    assert!(parse(&[r#"{"kty":"RSA","e":"AQAB"}"#]).unwrap_err().contains("missing"));
    let many = vec![r#"{"kty":"oct"}"#; 65];
    assert!(parse(&many).unwrap_err().contains("more than 64"));
    for text in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[1]}"] {
        let error = KeySet::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line ") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_secret_has_at_least_32_bytes_without_its_line_end() {
    assert!(KeySet::of_secret(&[b's'; 31]).is_err());
    assert!(KeySet::of_secret(b"0123456789012345678901234567890\r\n").is_err());
    assert!(KeySet::of_secret(&[0; 4097]).is_err());
    let with_end = [SECRET, b"\n"].concat();
    let verifier = TokenVerifier::new(KeySet::of_secret(&with_end).unwrap(), &source());
    assert!(judge(&verifier, &claims()).is_ok());
}

proptest! {
    #[test]
    fn a_token_with_any_bit_changed_is_refused(at in any::<prop::sample::Index>(), bit in 0_u32..7) {
        let header = r#"{"alg":"HS256"}"#;
        let mut token = sign_with(header, &claims(), hs256(SECRET)).into_bytes();
        let at = at.index(token.len());
        token[at] ^= 1 << bit;
        prop_assert!(secret().verify(&token, NOW).is_err());
    }

    #[test]
    fn any_bytes_between_dots_are_refused(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
        is_text in any::<bool>(),
    ) {
        let parts = parts.iter().map(|part| if is_text { encode(part).into_bytes() } else { part.clone() });
        let token = parts.collect::<Vec<_>>().join(&b'.');
        prop_assert!(secret().verify(&token, NOW).is_err());
    }
}
