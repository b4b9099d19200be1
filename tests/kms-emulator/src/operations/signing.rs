//! Signatures and public keys.

use aws_lc_rs::digest::{self, Algorithm, Digest};
use aws_lc_rs::signature::{
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding,
};

use super::{Answer, Request, answer, base64};
use crate::error::ApiError;
use crate::key::Secret;
use crate::parameters::{one_of, required};

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html>
pub(super) fn sign(request: &Request<'_>) -> Result<Answer, ApiError> {
    let parameters = request.parameters;
    let message = &required("message", parameters.message.as_ref())?.0;
    let name = required("signingAlgorithm", parameters.signing_algorithm.as_ref())?;
    one_of("signingAlgorithm", Some(name), &SIGNING_ALGORITHMS)?;
    let message_type =
        one_of("messageType", parameters.message_type.as_ref(), &["RAW", "DIGEST", "EXTERNAL_MU"])?;
    let key = request.key_without_context("Sign")?;
    let Secret::Rsa { pair, .. } = &key.usable(request.now())?.secret else {
        return Err(key.wrong_usage("Sign"));
    };
    let Some((encoding, algorithm)) = rsa_algorithm(name) else {
        let spec = key.spec.as_str();
        return Err(ApiError::new(
            "InvalidKeyUsageException",
            format!("Algorithm {name} is incompatible with key spec {spec}."),
        ));
    };
    let digest = match message_type.unwrap_or("RAW") {
        "RAW" => digest::digest(algorithm, message),
        "DIGEST" => Digest::import_less_safe(message, algorithm)
            .map_err(|_| ApiError::validation(format!("Digest is invalid length for algorithm {name}.")))?,
        _ => return Err(ApiError::validation("MessageType EXTERNAL_MU is only for ML-DSA keys.")),
    };
    request.conclude("Sign", [&*key])?;
    let mut signature = vec![0; pair.public_modulus_len()];
    // AWS-LC signs digests and takes its own randomness for PSS.
    pair.sign_digest(encoding, &digest, &mut signature)
        .map_err(|error| ApiError::internal(format!("signing: {error}")))?;
    Ok(answer([
        ("KeyId", key.arn.clone().into()),
        ("Signature", base64(&signature)),
        ("SigningAlgorithm", name.as_str().into()),
    ]))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GetPublicKey.html>
pub(super) fn get_public_key(request: &Request<'_>) -> Result<Answer, ApiError> {
    let key = request.key_without_context("GetPublicKey")?;
    let public_key = key.usable(request.now())?.public_key();
    let Some(public_key) = public_key else {
        let spec = key.spec.as_str();
        return Err(ApiError::unsupported(format!("{} key spec {spec} has no public key.", key.arn)));
    };
    Ok(answer([
        ("KeyId", key.arn.clone().into()),
        ("PublicKey", base64(&public_key)),
        ("KeySpec", key.spec.as_str().into()),
        ("CustomerMasterKeySpec", key.spec.as_str().into()),
        ("KeyUsage", key.spec.usage().into()),
        ("SigningAlgorithms", RSA_ALGORITHMS.to_vec().into()),
    ]))
}

fn rsa_algorithm(name: &str) -> Option<(&'static dyn RsaEncoding, &'static Algorithm)> {
    Some(match name {
        "RSASSA_PKCS1_V1_5_SHA_256" => (&RSA_PKCS1_SHA256, &digest::SHA256),
        "RSASSA_PKCS1_V1_5_SHA_384" => (&RSA_PKCS1_SHA384, &digest::SHA384),
        "RSASSA_PKCS1_V1_5_SHA_512" => (&RSA_PKCS1_SHA512, &digest::SHA512),
        "RSASSA_PSS_SHA_256" => (&RSA_PSS_SHA256, &digest::SHA256),
        "RSASSA_PSS_SHA_384" => (&RSA_PSS_SHA384, &digest::SHA384),
        "RSASSA_PSS_SHA_512" => (&RSA_PSS_SHA512, &digest::SHA512),
        _ => return None,
    })
}

/// The signing algorithms of RSA keys, in AWS's order.
pub(super) const RSA_ALGORITHMS: [&str; 6] = [
    "RSASSA_PKCS1_V1_5_SHA_256",
    "RSASSA_PKCS1_V1_5_SHA_384",
    "RSASSA_PKCS1_V1_5_SHA_512",
    "RSASSA_PSS_SHA_256",
    "RSASSA_PSS_SHA_384",
    "RSASSA_PSS_SHA_512",
];

/// Every `SigningAlgorithmSpec` of AWS's model.
const SIGNING_ALGORITHMS: [&str; 13] = [
    "RSASSA_PSS_SHA_256",
    "RSASSA_PSS_SHA_384",
    "RSASSA_PSS_SHA_512",
    "RSASSA_PKCS1_V1_5_SHA_256",
    "RSASSA_PKCS1_V1_5_SHA_384",
    "RSASSA_PKCS1_V1_5_SHA_512",
    "ECDSA_SHA_256",
    "ECDSA_SHA_384",
    "ECDSA_SHA_512",
    "SM2DSA",
    "ML_DSA_SHAKE_256",
    "ED25519_SHA_512",
    "ED25519_PH_SHA_512",
];
