use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use std::time::{Duration, Instant};
use tonic::transport::Endpoint;
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (socket, n, secs): (_, usize, u64) = (&a[1], a[2].parse().unwrap(), a[3].parse().unwrap());
    let ch = Endpoint::from_shared(format!("unix:{socket}")).unwrap().connect().await.unwrap();
    let request = pb::GenerateDataKeyRequest {
        key_id: "alias/bench".into(),
        length: Some(pb::generate_data_key_request::Length::KeySpec(pb::KeySpec::Aes256.into())),
        encryption_context: [("tenant".to_owned(), "acme".to_owned())].into(),
        ..Default::default()
    };
    let mut set = tokio::task::JoinSet::new();
    let start = Instant::now();
    for _ in 0..n {
        let mut c = KeyBrokerClient::new(ch.clone());
        let request = request.clone();
        set.spawn(async move {
            let mut k = 0u64;
            while start.elapsed() < Duration::from_secs(secs) {
                c.generate_data_key(request.clone()).await.unwrap();
                k += 1;
            }
            k
        });
    }
    let total: u64 = set.join_all().await.into_iter().sum();
    println!("{n} in flight: {:.0} calls/s", total as f64 / start.elapsed().as_secs_f64());
}
