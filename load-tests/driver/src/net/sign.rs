//! Request signatures, version 4, as an SDK makes them: what a publisher of the service's own kind sends.

use ring::{digest, hmac};
use time::OffsetDateTime;
use time::macros::format_description;

/// The key that `causeway.yaml` beside the routes gives to the driver.
pub const KEY: (&str, &str) = ("AKIALOAD", "a-secret-of-the-load-driver");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Encodes a path once more, as it is signed.
fn encoded(path: &str) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes()
        .map(|b| if is_kept(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// The header lines that sign a POST of `body`, good for five minutes.
pub fn headers(host: &str, path: &str, body: &[u8], now: OffsetDateTime) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let stamp = now.format(format).unwrap_or_default();
    let scope = format!("{}/us-east-1/execute-api/aws4_request", &stamp[..8]);
    let payload = sha256(body);
    let names = "content-type;host;x-amz-content-sha256;x-amz-date";
    let canonical = format!(
        "POST\n{}\n\ncontent-type:application/json\nhost:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{stamp}\n\n{names}\n{payload}",
        encoded(path)
    );
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let sign = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
    };
    let key =
        scope.split('/').fold(format!("AWS4{}", KEY.1).into_bytes(), |key, part| sign(&key, part));
    let signature = hex(&sign(&key, &text));
    format!(
        "x-amz-content-sha256: {payload}\r\nX-Amz-Date: {stamp}\r\nAuthorization: AWS4-HMAC-SHA256 Credential={}/{scope}, \
         SignedHeaders={names}, Signature={signature}\r\n",
        KEY.0
    )
}
