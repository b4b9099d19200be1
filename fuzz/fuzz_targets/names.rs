//! Names of keys and workloads against any text.
//!
//! Holds for every input: no panic; what is taken as a name has none of the letters that lead elsewhere, reads back as itself,
//! and an ARN that is found in a sentence stands there.

#![no_main]

use key_broker_core::{KeyArn, KeyId, SpiffeId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert!(text.bytes().all(|b| b.is_ascii_graphic() && !b"%?#@\\:\"".contains(&b) || b == b':'));
        assert!(text[9..].split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != ".."));
        assert!(text[9..].starts_with(id.trust_domain()) && !id.trust_domain().is_empty());
        assert!(!text[9..].contains(':'));
    }
    if let Ok(id) = KeyId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert!(text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(".."));
        // As the broker completes a key's id, or the ARN as it is.
        let completed = format!("arn:aws:kms:us-west-2:111122223333:key/{}", id.as_str());
        let arn = KeyArn::parse(text).or_else(|| KeyArn::parse(&completed));
        if let Some(arn) = arn.filter(|_| !id.is_alias()) {
            assert_eq!(KeyArn::parse(arn.as_str()), Some(arn.clone()));
            assert!(id.names(&arn), "{id:?} {arn:?}");
            assert_eq!(arn.account_id().len(), 12);
            assert!(!arn.region().is_empty());
        }
        if let Some(short) = id.short_alias("us-west-2", "111122223333") {
            assert!(short.is_alias() && short.as_str().starts_with("alias/"), "{id:?} {short:?}");
            assert!(KeyId::parse(short.as_str()).is_ok());
        }
    }
    if let Some(arn) = KeyArn::find_in(text) {
        assert!(text.contains(arn.as_str()));
    }
});
