//! Flow tokens (contract section 3), made and read without the program under test.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Makes the token of a credential whose strings need no JSON escaping.
pub fn expected_token(client_id: &str, client_secret: &str, tenant: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let payload = URL_SAFE_NO_PAD.encode(format!(
        r#"{{"clientId":"{client_id}","clientSecret":"{client_secret}","tenant":"{tenant}"}}"#
    ));
    let signed = format!("{header}.{payload}");
    let signature = URL_SAFE_NO_PAD.encode(signature(client_secret, &signed));
    format!("{signed}.{signature}")
}

/// Returns the client id in an `Authorization` value where it is `Bearer` and a token that is
/// correctly signed under the secret in its own payload, as Flow checks it.
pub fn verified_client_id(authorization: &str) -> Option<String> {
    let token = authorization.strip_prefix("Bearer ")?;
    let (signed, signature_text) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    if URL_SAFE_NO_PAD.decode(header).ok()? != br#"{"alg":"HS256","typ":"JWT"}"# {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    let secret = claims.get("clientSecret")?.as_str()?;
    if URL_SAFE_NO_PAD.decode(signature_text).ok()? != signature(secret, signed) {
        return None;
    }
    Some(claims.get("clientId")?.as_str()?.to_owned())
}

fn signature(secret: &str, signed: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(signed.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
