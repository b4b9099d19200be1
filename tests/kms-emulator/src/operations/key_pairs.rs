//! Data key pairs.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RsaKeyPair,
};
use zeroize::Zeroizing;

use super::cryptography::usable_cipher;
use super::{Answer, Delivery, Request, answer, base64};
use crate::ciphertext::seal;
use crate::error::ApiError;
use crate::key::Key;
use crate::parameters::{Parameters, one_of, required};
use crate::recipient::{Recipient, authorize};

/// The private key in PKCS #8, the public key as `SubjectPublicKeyInfo`.
struct Pair {
    private: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyPair.html>
pub(super) fn generate(request: &Request<'_>, recipient: Option<&Recipient>) -> Result<Delivery, ApiError> {
    let spec = spec(request.parameters)?;
    let key = request.key("GenerateDataKeyPair")?;
    authorize(request.caller, &key, recipient, "GenerateDataKeyPair")?;
    let (mut answer, pair) = made(request, &key, spec, "GenerateDataKeyPair")?;
    let Some(recipient) = recipient else {
        answer.insert("PrivateKeyPlaintext".to_owned(), base64(&pair.private));
        return Ok(Delivery::open(answer));
    };
    answer.insert("CiphertextForRecipient".to_owned(), recipient.seal(&pair.private)?);
    Ok(Delivery { answer, withheld: None })
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyPairWithoutPlaintext.html>
pub(super) fn generate_without_plaintext(request: &Request<'_>) -> Result<Answer, ApiError> {
    let spec = spec(request.parameters)?;
    let key = request.key("GenerateDataKeyPairWithoutPlaintext")?;
    Ok(made(request, &key, spec, "GenerateDataKeyPairWithoutPlaintext")?.0)
}

fn spec(parameters: &Parameters) -> Result<&str, ApiError> {
    let spec = required("keyPairSpec", parameters.key_pair_spec.as_ref())?;
    one_of("keyPairSpec", Some(spec), &SPECS)?;
    Ok(spec)
}

fn made(
    request: &Request<'_>,
    key: &Key,
    spec: &str,
    operation: &'static str,
) -> Result<(Answer, Pair), ApiError> {
    let (material, cipher) = usable_cipher(key, operation, request.now())?;
    request.conclude(operation, [key])?;
    let pair = pair(spec).map_err(ApiError::internal)?;
    let blob = seal(cipher, &key.id, &material.id, &request.parameters.context(), &pair.private);
    let answer = answer([
        ("PrivateKeyCiphertextBlob", base64(&blob)),
        ("PublicKey", base64(&pair.public)),
        ("KeyId", key.arn.clone().into()),
        ("KeyPairSpec", spec.into()),
        ("KeyMaterialId", material.id_hex().into()),
    ]);
    Ok((answer, pair))
}

fn pair(spec: &str) -> Result<Pair, String> {
    match spec {
        "RSA_2048" => rsa(KeySize::Rsa2048),
        "RSA_3072" => rsa(KeySize::Rsa3072),
        "RSA_4096" => rsa(KeySize::Rsa4096),
        "ECC_NIST_P256" => ecc(&ECDSA_P256_SHA256_ASN1_SIGNING),
        "ECC_NIST_P384" => ecc(&ECDSA_P384_SHA384_ASN1_SIGNING),
        "ECC_NIST_P521" => ecc(&ECDSA_P521_SHA512_ASN1_SIGNING),
        "ECC_SECG_P256K1" => ecc(&ECDSA_P256K1_SHA256_ASN1_SIGNING),
        other => Err(format!("{other} is not made here")),
    }
}

fn rsa(size: KeySize) -> Result<Pair, String> {
    let pair = RsaKeyPair::generate(size).map_err(|error| error.to_string())?;
    let private: Pkcs8V1Der<'_> = pair.as_der().map_err(|error| error.to_string())?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|error| error.to_string())?;
    Ok(Pair { private: Zeroizing::new(private.as_ref().to_vec()), public: public.as_ref().to_vec() })
}

fn ecc(algorithm: &'static EcdsaSigningAlgorithm) -> Result<Pair, String> {
    let pair = EcdsaKeyPair::generate(algorithm).map_err(|error| error.to_string())?;
    let private = pair.to_pkcs8v1().map_err(|error| error.to_string())?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|error| error.to_string())?;
    Ok(Pair { private: Zeroizing::new(private.as_ref().to_vec()), public: public.as_ref().to_vec() })
}

/// But for SM2, which is of the regions in China.
const SPECS: [&str; 7] = [
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
];
