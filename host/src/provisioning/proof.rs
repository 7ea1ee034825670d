//! Who a platform is, and whom it sent.

use std::time::Duration;

use billhook_model::{Moment, text::hex};
use billhook_plugin_api::data::SingleSignOn;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A platform sends somebody to see their resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignOnRequest {
    /// The add-on's id of the resource.
    pub id: String,
    /// The hexadecimal SHA-1 of `id:salt:timestamp`.
    pub token: String,
    /// When the platform sent them, in seconds since 1970.
    pub timestamp: String,
    /// Who they are.
    pub login: SingleSignOn,
}

impl SignOnRequest {
    /// Returns whether a time is near enough to now for a sign-on: five minutes at most.
    pub fn is_recent(timestamp: &str, now: Moment) -> bool {
        is_recent(timestamp, now)
    }
}

/// A sign-on is good for so long, and as long before its time, where clocks differ.
const GOOD_FOR: Duration = Duration::from_secs(5 * 60);

/// Whether two secrets are the same, in a time that tells nothing of either.
pub(crate) fn is_same(left: &str, right: &str) -> bool {
    // Of digests, which have one length.
    Sha256::digest(left).ct_eq(&Sha256::digest(right)).into()
}

/// Whether a sign-on is of now.
pub(super) fn is_recent(timestamp: &str, now: Moment) -> bool {
    let now = now.seconds().unsigned_abs();
    let is_number = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    is_number && timestamp.parse::<u64>().is_ok_and(|then| then.abs_diff(now) <= GOOD_FOR.as_secs())
}

/// Whether a sign-on was signed with a salt: SHA-1 is what the protocol says.
pub(super) fn is_signed(request: &SignOnRequest, salt: &str) -> bool {
    let SignOnRequest { id, timestamp, token, .. } = request;
    let digest = Sha1::digest(format!("{id}:{salt}:{timestamp}"));
    is_same(&hex(&digest), &token.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_digest_of_id_salt_and_timestamp() {
        let request = SignOnRequest {
            id: "7".to_owned(),
            timestamp: "1700000000".to_owned(),
            // printf 7:salt:1700000000 | sha1sum
            token: "4f6e9cee550e90cbd2bb55414d8ed5ae875c228d".to_owned(),
            ..SignOnRequest::default()
        };
        assert!(is_signed(&request, "salt"));
        assert!(is_signed(&SignOnRequest { token: request.token.to_uppercase(), ..request.clone() }, "salt"));
        for other in [
            SignOnRequest { token: String::new(), ..request.clone() },
            SignOnRequest { id: "8".to_owned(), ..request.clone() },
            SignOnRequest { timestamp: "1700000001".to_owned(), ..request.clone() },
        ] {
            assert!(!is_signed(&other, "salt"), "{other:?}");
        }
        assert!(!is_signed(&request, "pepper"));
    }

    #[test]
    fn a_sign_on_is_good_for_five_minutes() {
        let now: u64 = 1_700_000_000;
        for (timestamp, expected) in [
            (now.to_string(), true),
            ((now - 290).to_string(), true),
            ((now + 290).to_string(), true),
            ((now - 310).to_string(), false),
            ((now + 310).to_string(), false),
            (String::new(), false),
            ("-1".to_owned(), false),
            (format!("+{now}"), false),
            ("99999999999999999999".to_owned(), false),
        ] {
            assert_eq!(is_recent(&timestamp, Moment::from_seconds(1_700_000_000)), expected, "{timestamp}");
        }
    }
}
