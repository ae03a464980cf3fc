//! The token that Flow accepts: an HS256 JSON Web Token of a credential.
//!
//! Owns the exact bytes of the token. They are those of Python's PyJWT 2, which the credentials were
//! issued for: header and claims in a fixed order, compact, non-ASCII characters escaped as in
//! `json.dumps`. Out of scope: where the claims come from, and verifying tokens. Pure; called once for
//! each credential when the secrets are loaded.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The JOSE header as PyJWT writes it.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// The length of a signature, an HMAC-SHA256.
const SIGNATURE_BYTES: usize = 32;
/// More than the dots of a token and the rounding of its three parts add to its length.
const MARGIN: usize = 16;
/// The most bytes that JSON takes for a byte of UTF-8: `\u001f`.
const MAX_ESCAPED: usize = 6;
/// More than the names of the claims and what stands between them take in JSON.
const NAMES_BYTES: usize = 64;

/// The claims of a token, in their order.
#[derive(Clone, Copy)]
pub struct Claims<'a> {
    /// `clientId`
    pub client_id: &'a str,
    /// `clientSecret`: a claim, and also the key that signs the token.
    pub client_secret: &'a str,
    /// `tenant`
    pub tenant: &'a str,
}

/// Returns `before` and the signed token in JWS compact serialization (RFC 7515 section 7.1), in ASCII.
///
/// It has no `exp` and no `iat`, so that equal claims always make the same token.
pub fn sign_hs256(before: &str, claims: Claims<'_>) -> Zeroizing<String> {
    let payload = payload(claims);
    // A text that grows leaves copies: base64 takes four characters for three bytes.
    let length = (HEADER.len() + payload.len() + SIGNATURE_BYTES).div_ceil(3) * 4;
    let mut text = Zeroizing::new(String::with_capacity(before.len() + length + MARGIN));
    text.push_str(before);
    URL_SAFE_NO_PAD.encode_string(HEADER, &mut text);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(&*payload, &mut text);

    let mut mac = Hmac::<Sha256>::new_from_slice(claims.client_secret.as_bytes())
        .expect("HMAC takes a key of any length (RFC 2104 section 2)");
    mac.update(&text.as_bytes()[before.len()..]);
    let signature = mac.finalize().into_bytes();

    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    text
}

fn payload(claims: Claims<'_>) -> Zeroizing<String> {
    let values = [claims.client_id, claims.client_secret, claims.tenant];
    let length: usize = values.iter().map(|value| value.len() * MAX_ESCAPED).sum();
    let mut json = Zeroizing::new(String::with_capacity(length + NAMES_BYTES));
    json.push_str(r#"{"clientId":"#);
    push_json_string(&mut json, claims.client_id);
    json.push_str(r#","clientSecret":"#);
    push_json_string(&mut json, claims.client_secret);
    json.push_str(r#","tenant":"#);
    push_json_string(&mut json, claims.tenant);
    json.push('}');
    json
}

/// Appends `text` as Python's `json.dumps` writes it: printable ASCII as it is, a short escape where
/// JSON has one, everything else (also DEL) as UTF-16 code units in lower-case hex.
fn push_json_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            ' '..='~' => json.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with PyJWT 2.15.1: `jwt.encode(payload, payload["clientSecret"], "HS256")`.
    fn assert_signs_as_pyjwt(client_id: &str, client_secret: &str, tenant: &str, token: &str) {
        let claims = Claims {
            client_id,
            client_secret,
            tenant,
        };
        let signed = sign_hs256("Bearer ", claims);
        assert_eq!(*signed, format!("Bearer {token}"));
    }

    #[test]
    fn plain_ascii_claims_give_pyjwts_token() {
        assert_signs_as_pyjwt(
            "fake-client-id",
            "fake-client-secret-for-tests-only",
            "fake-tenant",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjbGllbnRJZCI6ImZha2UtY2xpZW50LWlkIiwiY2xpZW50U2VjcmV0IjoiZmFrZS1jbGllbnQtc2VjcmV0LWZvci10ZXN0cy1vbmx5IiwidGVuYW50IjoiZmFrZS10ZW5hbnQifQ.gSsBsSIlAGFAJEGjJP5brlpwrc3MRFZly3AIZKoNHX0",
        );
    }

    #[test]
    fn non_ascii_astral_and_control_characters_are_escaped_as_python_does() {
        assert_signs_as_pyjwt(
            "fake-\u{e9}\u{4e2d}\u{1F600}\u{10FFFF}",
            "s\u{e9}cret-fake-\u{1F511}-\u{2028}\u{FEFF}-not-a-real-secret",
            "t\0\u{1}\u{1f}\u{7f}\u{80}\u{2029}",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjbGllbnRJZCI6ImZha2UtXHUwMGU5XHU0ZTJkXHVkODNkXHVkZTAwXHVkYmZmXHVkZmZmIiwiY2xpZW50U2VjcmV0Ijoic1x1MDBlOWNyZXQtZmFrZS1cdWQ4M2RcdWRkMTEtXHUyMDI4XHVmZWZmLW5vdC1hLXJlYWwtc2VjcmV0IiwidGVuYW50IjoidFx1MDAwMFx1MDAwMVx1MDAxZlx1MDA3Zlx1MDA4MFx1MjAyOSJ9.efwX6BSsEhMMDHllGXDDsEAUXD25gInrxrPi_hGH9s0",
        );
    }

    #[test]
    fn quotes_backslashes_and_short_escapes_are_written_as_python_does() {
        assert_signs_as_pyjwt(
            "q\"b\\s/nl\n\r\t\u{8}\u{c}<>&'",
            "fake secret with \"quotes\" and \\backslashes\\",
            "a/b",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjbGllbnRJZCI6InFcImJcXHMvbmxcblxyXHRcYlxmPD4mJyIsImNsaWVudFNlY3JldCI6ImZha2Ugc2VjcmV0IHdpdGggXCJxdW90ZXNcIiBhbmQgXFxiYWNrc2xhc2hlc1xcIiwidGVuYW50IjoiYS9iIn0.eWEdT37DhF0Lh-fyIRWuyFkEhcskv88rpzJ9r5rwv2o",
        );
    }

    #[test]
    fn a_secret_longer_than_a_sha256_block_is_hashed_first() {
        assert_signs_as_pyjwt(
            "x",
            &format!("{}-fake", "k".repeat(100)),
            "z",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjbGllbnRJZCI6IngiLCJjbGllbnRTZWNyZXQiOiJra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2trLWZha2UiLCJ0ZW5hbnQiOiJ6In0.fvsepoxhdFPVkr7Euu_8qCzVb0PLWzppw-uVlJqhvzY",
        );
    }

    #[test]
    fn a_secret_of_one_byte_signs_too() {
        assert_signs_as_pyjwt(
            "x",
            "k",
            "z",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjbGllbnRJZCI6IngiLCJjbGllbnRTZWNyZXQiOiJrIiwidGVuYW50IjoieiJ9.Ig64FJnN8PmlxVJXBOTgDz_IOaSTCLMTOvXMn3CmfHo",
        );
    }
}
