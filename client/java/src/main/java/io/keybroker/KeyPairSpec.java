package io.keybroker;

/** The kind of a data key pair, as in the AWS KMS API reference. */
public enum KeyPairSpec {
  /** RSA with 2,048 bits. */
  RSA_2048,
  /** RSA with 3,072 bits. */
  RSA_3072,
  /** RSA with 4,096 bits. */
  RSA_4096,
  /** The curve secp256r1. */
  ECC_NIST_P256,
  /** The curve secp384r1. */
  ECC_NIST_P384,
  /** The curve secp521r1. */
  ECC_NIST_P521,
  /** The curve secp256k1. */
  ECC_SECG_P256K1;

  io.keybroker.v1.KeyPairSpec sent() {
    return io.keybroker.v1.KeyPairSpec.valueOf("KEY_PAIR_SPEC_" + name());
  }
}
