//! The last step to a permit, once the request's key is known: it asks nobody. Both the broker and `key-broker check --as` use it,
//! so that they agree.

use key_broker_core::{EncryptionContext, Principal};

use crate::error::BrokerError;
use crate::policy::Decision;
use crate::policy::bindings::Bindings;

/// Adds to a request's context the pairs that the principal's contexts must have. Operations without a context need none.
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

/// The result for the caller. Policy comes first, so that a caller who may not use a key learns neither whether it exists nor
/// what its context would have to be.
pub(crate) fn ruling(
    decision: &Decision,
    denied: impl FnOnce() -> BrokerError,
    no_key: Option<BrokerError>,
    bound: Result<(), BrokerError>,
) -> Result<(), BrokerError> {
    if !decision.permits {
        return Err(denied());
    }
    no_key.map_or(bound, Err)
}
