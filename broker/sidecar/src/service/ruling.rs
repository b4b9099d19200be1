//! How a call ends at policy, once it is known what its key means: the part of the way to a permit that asks nobody. A broker and
//! `key-broker check --as` both go it, so that they say the same.

use key_broker_core::{EncryptionContext, Principal};

use crate::error::BrokerError;
use crate::policy::Decision;
use crate::policy::bindings::Bindings;

/// Gives a request's context the pairs that its principal's contexts are bound to. Operations without a context are bound to none.
pub(crate) fn bind(
    bindings: &Bindings,
    principal: &Principal,
    context: Option<&mut EncryptionContext>,
) -> Result<(), BrokerError> {
    let Some(context) = context else { return Ok(()) };
    if let Some(bound) = bindings.bind(principal, context)? {
        *context = bound;
    }
    Ok(())
}

/// What the caller is told. Policy comes first: whoever may not use a key does not learn whether there is one, nor what its context
/// would have to be.
pub(crate) fn ruling(
    decision: &Decision,
    denied: BrokerError,
    no_key: Option<BrokerError>,
    bound: Result<(), BrokerError>,
) -> Result<(), BrokerError> {
    if !decision.permits {
        return Err(denied);
    }
    no_key.map_or(bound, Err)
}
