//! What a broker delivers can be read, and nothing planted beside it or in its place: nothing beyond a bound, and nothing with trailing
//! bytes.

use std::collections::BTreeMap;

use super::*;
use crate::log_file::compress;
use crate::store::Object;
use crate::store::directory::DirectoryStore;

fn names() -> TrailNames {
    TrailNames {
        account_id: "111122223333".into(),
        region: "us-west-2".into(),
        trail: "key-broker".into(),
        bucket: "logs".into(),
        prefix: String::new(),
    }
}

async fn read(bytes: Vec<u8>) -> Result<Option<Vec<u8>>, ReadFailure> {
    let root = tempfile::tempdir().expect("a directory");
    let store = DirectoryStore::new(root.path(), "logs");
    let object = Object { key: "a/b.json.gz".into(), bytes, metadata: BTreeMap::new() };
    store.put(object).await.expect("puts");
    TrailReader::new(Arc::new(store), names(), None).log_file("a/b.json.gz").await
}

fn refused(result: Result<Option<Vec<u8>>, ReadFailure>) -> String {
    match result {
        Err(ReadFailure::Malformed(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is read"),
    }
}

#[tokio::test]
async fn one_gzip_member_is_read_and_nothing_else() {
    let text = br#"{"Records":[]}"#;
    let whole = compress(text).expect("compresses");
    let read_text = read(whole.clone()).await.expect("reads").expect("is there");
    assert_eq!(read_text, text);
    assert!(refused(read([&whole[..], b"x"].concat()).await).contains("follow"));
    assert!(refused(read([whole.as_slice(), whole.as_slice()].concat()).await).contains("follow"));
    assert!(refused(read(whole[..whole.len() - 9].to_vec()).await).contains("cut off"));
    assert!(refused(read(text.to_vec()).await).contains("no gzip"));
    assert!(refused(read(Vec::new()).await).contains("cut off"));
}

#[test]
fn a_bomb_is_refused() {
    let bomb = compress(&[0; 10_001]).expect("compresses");
    assert!(bomb.len() < 1_000);
    let refused = gunzip_within(&bomb, 10_000).expect_err("refused");
    assert!(refused.to_string().contains("more than 10000 bytes"), "{refused}");
    assert_eq!(gunzip_within(&bomb, 10_001).expect("reads").len(), 10_001);
}

#[tokio::test]
async fn what_is_encrypted_is_locked_without_a_way_to_kms_and_other_messages_are_refused() {
    assert!(refused(read(b"\x02\x05\x78 and so on".to_vec()).await).contains("0578"));
    let root = tempfile::tempdir().expect("a directory");
    let reader = TrailReader::new(Arc::new(DirectoryStore::new(root.path(), "logs")), names(), None);
    assert!(reader.log_file("none").await.expect("reads").is_none());
    assert!(reader.digest("none").await.expect("reads").is_none());
}
