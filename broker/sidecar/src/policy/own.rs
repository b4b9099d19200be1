//! The fixed policy for the broker's own calls to KMS, which it makes on behalf of no workload.

use std::sync::Arc;

use key_broker_core::Principal;
use key_broker_trail::TRAIL_ARN;

use super::{Permitted, Requester};
use crate::error::BrokerError;
use crate::operation::{KmsRequest, TypedRequest};

/// Permits a call of the broker's own, whose reply reaches no workload.
pub(crate) fn permit<R: TypedRequest>(request: R) -> Result<Permitted<Arc<R>>, BrokerError> {
    permit_within_share(None, request)
}

/// The same for a call that a principal's own call depends on: it counts against that principal's calls to KMS.
pub(crate) fn permit_for<R: TypedRequest>(
    principal: &Principal,
    request: R,
) -> Result<Permitted<Arc<R>>, BrokerError> {
    permit_within_share(Some(principal.clone()), request)
}

fn permit_within_share<R: TypedRequest>(
    share_of: Option<Principal>,
    request: R,
) -> Result<Permitted<Arc<R>>, BrokerError> {
    let request = Arc::new(request);
    if permits(&Arc::clone(&request).into_kms_request()) {
        Ok(Permitted::new(request, Requester::Broker, share_of, None))
    } else {
        // The broker's own code decides which calls it makes.
        Err(BrokerError::Bug)
    }
}

fn permits(request: &KmsRequest) -> bool {
    match request {
        // Resolving an alias, checking a cached key, or describing the trail's signing key.
        KmsRequest::DescribeKey(_)
        | KmsRequest::DryRun(_)
        | KmsRequest::Sign(_)
        | KmsRequest::PublicKey(_) => true,
        // Data keys of the trail's log files, and no others.
        KmsRequest::DataKey(request) => request.context.pairs().contains_key(TRAIL_ARN),
        KmsRequest::Decrypt(request) => {
            request.key.is_some() && request.context.pairs().contains_key(TRAIL_ARN)
        }
        // The broker has no use of its own for these.
        KmsRequest::DataKeyWithoutPlaintext(_)
        | KmsRequest::Encrypt(_)
        | KmsRequest::ReEncrypt(_)
        | KmsRequest::DataKeyPair(_)
        | KmsRequest::DataKeyPairWithoutPlaintext(_)
        | KmsRequest::AttestedDataKeyPair(_)
        | KmsRequest::Random(_)
        | KmsRequest::AttestedDataKey(_)
        | KmsRequest::AttestedDecrypt(_)
        | KmsRequest::AttestedRandom(_) => false,
    }
}
