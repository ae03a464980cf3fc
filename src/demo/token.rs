//! Verifies the token of a request.
//!
//! It does not sign the claims again with [`crate::config::jwt`]: it verifies the token as a service
//! does, so that a mistake in signing shows. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use super::accounts::{Account, Standing};

/// The part of the JOSE header that counts (RFC 7515 section 4.1.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    client_id: String,
    client_secret: String,
    tenant: String,
}

/// Returns the account whose token is in `authorization`, the value of the Authorization header.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with "Authentication Error, ".
pub(super) fn authenticate<'a>(
    authorization: Option<&[u8]>,
    accounts: &'a [Account],
) -> Result<&'a Account, &'static str> {
    let field = authorization.ok_or("no API key passed in")?;
    let token = bearer(field).ok_or("the Authorization field holds no Bearer token")?;
    let (signed, signature) = token
        .rsplit_once('.')
        .ok_or("the key is not a JSON Web Token")?;
    let (header, payload) = signed
        .split_once('.')
        .ok_or("the key is not a JSON Web Token")?;
    let header: Header = decoded(header).ok_or("the token's header is malformed")?;
    // Only this one, whatever the token asks for: with "none" or a weaker one, tokens can be forged.
    if header.alg != "HS256" {
        return Err("the token is not signed with HS256");
    }
    let claims: Claims = decoded(payload).ok_or("the token's claims are malformed")?;
    let account = accounts
        .iter()
        .find(|account| account.client_id == claims.client_id)
        .ok_or("the clientId is unknown")?;
    verify(signed, signature, account.client_secret)?;
    // The signature proves that the client has the secret: a comparison in constant time is not needed.
    if claims.client_secret != account.client_secret || claims.tenant != account.tenant {
        return Err("the token's claims are not those of this client");
    }
    match account.standing {
        Standing::Full | Standing::Basic => Ok(account),
        Standing::Revoked => Err("the key of this client has been revoked"),
    }
}

/// Returns the token of a Bearer credential. RFC 9110 section 11.1: the scheme is case-insensitive.
fn bearer(field: &[u8]) -> Option<&str> {
    let (scheme, token) = std::str::from_utf8(field).ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn decoded<T: DeserializeOwned>(part: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Verifies the signature. RFC 7515 section 5.2: it is over the two parts as they were received.
fn verify(signed: &str, signature: &str, key: &str) -> Result<(), &'static str> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes())
        .expect("HMAC takes a key of any length (RFC 2104 section 2)");
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| "the token's signature is malformed")?;
    // Compares in constant time.
    mac.verify_slice(&signature)
        .map_err(|_| "the token's signature is wrong")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Account; 1] = [Account {
        name: "known",
        client_id: "id",
        client_secret: "fake",
        tenant: "t",
        standing: Standing::Full,
    }];
    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
    const CLAIMS: &str = r#"{"clientId":"id","clientSecret":"fake","tenant":"t"}"#;

    fn token(header: &str, claims: &str, key: &str) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    fn verdict(authorization: &str) -> Result<&'static str, &'static str> {
        authenticate(Some(authorization.as_bytes()), &KNOWN).map(|account| account.name)
    }

    #[test]
    fn a_signed_token_is_accepted_whatever_its_json_looks_like() {
        let token = token(
            r#"{ "typ": "JWT", "alg": "HS256" }"#,
            r#"{"tenant":"\u0074", "clientId":"id", "clientSecret":"fake", "more": 1}"#,
            "fake",
        );
        assert_eq!(verdict(&format!("Bearer {token}")), Ok("known"));
        assert_eq!(verdict(&format!("bearer {token}")), Ok("known"));
    }

    #[test]
    fn a_token_not_signed_with_the_account_s_secret_is_rejected() {
        let signature_is_wrong = Err("the token's signature is wrong");
        let forged = token(HEADER, CLAIMS, "guess");
        assert_eq!(verdict(&format!("Bearer {forged}")), signature_is_wrong);
        let own_secret = CLAIMS.replace("fake", "guess");
        let forged = token(HEADER, &own_secret, "guess");
        assert_eq!(verdict(&format!("Bearer {forged}")), signature_is_wrong);
        let good = token(HEADER, CLAIMS, "fake");
        let (signed, _) = good.rsplit_once('.').unwrap();
        assert_eq!(verdict(&format!("Bearer {signed}.")), signature_is_wrong);
    }

    #[test]
    fn a_token_that_asks_for_another_algorithm_is_rejected() {
        let header = HEADER.replace("HS256", "none");
        let token = token(&header, CLAIMS, "fake");
        let expected = Err("the token is not signed with HS256");
        assert_eq!(verdict(&format!("Bearer {token}")), expected);
    }

    #[test]
    fn claims_of_another_client_are_rejected() {
        for claims in [
            CLAIMS.replace(r#""t""#, r#""u""#),
            CLAIMS.replace("fake", "fakf"),
        ] {
            let token = token(HEADER, &claims, "fake");
            let expected = Err("the token's claims are not those of this client");
            assert_eq!(verdict(&format!("Bearer {token}")), expected);
        }
        let token = token(HEADER, &CLAIMS.replace(r#""id""#, r#""ie""#), "fake");
        let expected = Err("the clientId is unknown");
        assert_eq!(verdict(&format!("Bearer {token}")), expected);
    }

    #[test]
    fn what_is_no_token_at_all_is_rejected() {
        assert!(authenticate(None, &KNOWN).is_err());
        for field in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer ..",
            "Bearer a.b",
            "Basic aWQ6ZmFrZQ==",
        ] {
            assert!(verdict(field).is_err(), "{field:?}");
        }
        assert!(authenticate(Some(b"Bearer \xff"), &KNOWN).is_err());
    }
}
