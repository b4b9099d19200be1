//! One record: is it of one of the two profiles, to the letter, and what does it say?

mod fields;
mod ordered;
mod profile;

use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};

use uuid::Uuid;

use super::ids;
use crate::audit::journal::Notice;
use fields::{ActivityData, Fields, ORDER, Parameters};

/// What a record says that others are held against.
pub(super) struct Seen {
    pub(super) event_id: u128,
    /// Seconds since 1970.
    pub(super) at: i64,
    pub(super) what: What,
}

pub(super) enum What {
    /// KMS answered.
    Kms {
        /// requestID and eventName.
        request: u128,
        call: Call,
    },
    /// A workload asked.
    Activity {
        /// Where the answer came from, if it names a KMS record.
        made: Option<Use>,
        /// A call to KMS without the KMS record's eventID: one that failed.
        failed: Option<u128>,
        told: Notice,
    },
}

/// A call to KMS. Texts are hashes under a random key: what is compared is only whether they are equal.
#[derive(Clone, Copy)]
pub(super) struct Call {
    /// The requestID.
    pub(super) request: u64,
    /// The operation and what it was asked; none where AccessDenied hides it.
    pub(super) asked: Option<u64>,
    pub(super) at: i64,
    pub(super) was_refused: bool,
}

/// One use of an answer of KMS.
#[derive(Clone, Copy)]
pub(super) struct Use {
    /// The eventID of the KMS record.
    pub(super) call: u128,
    /// The requestID.
    pub(super) request: Option<u64>,
    /// As [`Call::asked`].
    pub(super) asked: u64,
    /// With the ciphertext, too: what has to be equal for all who share an answer.
    pub(super) subject: u64,
    pub(super) principal: u64,
    pub(super) is_allowed: bool,
    /// KMS was called for this very request.
    pub(super) from_kms: bool,
    pub(super) at: i64,
    pub(super) minted_at: Option<i64>,
    /// None where the answer is handed out once.
    pub(super) expires_at: Option<i64>,
    /// Of a data key only.
    pub(super) charge: Option<Charge>,
}

/// What one draw took of a data key.
#[derive(Clone, Copy)]
pub(super) struct Charge {
    pub(super) messages: Amount,
    pub(super) bytes: Amount,
}

#[derive(Clone, Copy)]
pub(super) struct Amount {
    /// By this draw.
    pub(super) declared: u64,
    /// By all so far, this one included.
    pub(super) used: u64,
    /// Allowed in all.
    pub(super) limit: u64,
}

/// A record that is none.
pub(super) struct Flaw {
    pub(super) event_id: Option<Uuid>,
    pub(super) why: String,
}

/// Reads one record of a trail of this account.
pub(super) fn read(json: &str, account_id: &str, hashes: &RandomState) -> Result<Seen, Flaw> {
    let flaw = |event_id, why: String| Flaw { event_id, why };
    if json.len() > MAX_RECORD_BYTES {
        return Err(flaw(
            None,
            format!("{} bytes; CloudTrail's records have {MAX_RECORD_BYTES} at most", json.len()),
        ));
    }
    if !is_compact(json.as_bytes()) {
        return Err(flaw(None, "not compact JSON: a broker writes no spaces or line breaks".into()));
    }
    let fields: Fields<'_> = ordered::read(json, ORDER).map_err(|error| flaw(None, error.to_string()))?;
    let Some(event_id) = ids::uuid(&fields.event_id) else {
        return Err(flaw(None, "eventID is no UUID in lower case".into()));
    };
    seen(&fields, event_id, account_id, hashes).map_err(|why| flaw(Some(Uuid::from_u128(event_id)), why))
}

fn seen(fields: &Fields<'_>, event_id: u128, account_id: &str, hashes: &RandomState) -> Result<Seen, String> {
    let at = profile::check_head(fields, account_id)?;
    let what = match &*fields.event_category {
        "Management" => {
            profile::check_kms(fields)?;
            let was_denied = fields.error_code.as_deref() == Some("AccessDenied");
            What::Kms {
                request: ids::kms_request(&fields.request_id, &fields.event_name),
                call: Call {
                    request: hashes.hash_one(&*fields.request_id),
                    asked: (!was_denied).then(|| asked(fields, hashes)),
                    at,
                    was_refused: fields.error_code.is_some(),
                },
            }
        }
        "ActivityAuditLog" => {
            let extra = profile::check_activity(fields)?;
            activity(fields, &extra, at, hashes)?
        }
        other => return Err(format!("eventCategory {other:?} is neither Management nor ActivityAuditLog")),
    };
    Ok(Seen { event_id, at, what })
}

fn activity(
    fields: &Fields<'_>,
    extra: &ActivityData<'_>,
    at: i64,
    hashes: &RandomState,
) -> Result<What, String> {
    let told = extra.journal.unwrap_or_default();
    let Some(data_key) = &extra.data_key else {
        return Ok(What::Activity { made: None, failed: None, told });
    };
    let time = |name: &str, text: Option<&ordered::Text<'_>>| match text {
        None => Ok(None),
        Some(text) => {
            ids::seconds(text).map(Some).ok_or_else(|| format!("dataKey.{name} is no YYYY-MM-DDTHH:MM:SSZ"))
        }
    };
    let minted_at = time("mintedAt", data_key.minted_at.as_ref())?;
    let expires_at = time("expiresAt", data_key.expires_at.as_ref())?;
    let request_id = data_key.kms_request_id.as_deref();
    let Some(call) = data_key.kms_event_id.as_deref() else {
        let failed = request_id.map(|id| ids::kms_request(id, &fields.event_name));
        return Ok(What::Activity { made: None, failed, told });
    };
    let call = ids::uuid(call).ok_or("dataKey.kmsEventID is no UUID in lower case")?;
    let asked = asked(fields, hashes);
    let ciphertext = fields.request_parameters.as_ref().and_then(|asked| asked.ciphertext_sha256.as_deref());
    let made = Use {
        call,
        request: request_id.map(|id| hashes.hash_one(id)),
        asked,
        subject: hashes.hash_one((asked, ciphertext)),
        principal: hashes.hash_one(&*fields.user_identity.principal_id),
        is_allowed: &*extra.outcome == "Allowed",
        from_kms: &*data_key.served_from == "KMS",
        at,
        minted_at,
        expires_at,
        charge: profile::charge(fields.request_parameters.as_ref(), data_key)?,
    };
    Ok(What::Activity { made: Some(made), failed: None, told })
}

/// What an operation was asked: equal in the record of the call and in those of its uses.
fn asked(fields: &Fields<'_>, hashes: &RandomState) -> u64 {
    let mut state = hashes.build_hasher();
    fields.event_name.hash(&mut state);
    let Some(parameters) = &fields.request_parameters else { return state.finish() };
    // CloudTrail has no parameters of GenerateRandom.
    if &*fields.event_name == "GenerateRandom" {
        return state.finish();
    }
    let Parameters { encryption_algorithm, key_id, key_spec, number_of_bytes, encryption_context, .. } =
        parameters;
    // A workload names a key as it likes; KMS is asked for the key that this means.
    let arn = fields.resources.iter().flatten().map(|resource| &*resource.arn).next();
    let key = arn.or(key_id.as_deref());
    (encryption_algorithm.as_deref(), key, key_spec.as_deref(), number_of_bytes).hash(&mut state);
    for (name, value) in encryption_context.iter().flat_map(|context| &context.0) {
        (&**name, &**value).hash(&mut state);
    }
    state.finish()
}

/// Whether there is no white space between the parts of JSON.
fn is_compact(json: &[u8]) -> bool {
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        if in_text {
            in_text = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            return false;
        } else {
            in_text = *byte == b'"';
        }
    }
    true
}

/// CloudTrail: a record has 256 KB at most.
const MAX_RECORD_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests;
