//! The least that a gRPC server can do: tonic's own server on a unix socket, the same messages, the reply always the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::stream;
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use key_broker_proto::v1::key_broker_server::{KeyBroker, KeyBrokerServer};
use prost::Message;
use tokio::net::UnixListener;
use tonic::codegen::BoxStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::Failure;
use super::broker::connect;
use super::load::Grpc;
use super::process::Process;
use super::programs::Programs;

/// Makes this program the echo; followed by socket, file with the reply, and number of threads.
pub(crate) const ARGUMENT: &str = "--echo";

/// A running echo.
pub(crate) struct Echo {
    pub(crate) process: Process,
    socket: PathBuf,
}

impl Echo {
    pub(crate) fn start(
        programs: &Programs,
        reply: &pb::GenerateDataKeyResponse,
        threads: usize,
    ) -> Result<Self, Failure> {
        let (socket, file) = (programs.path(&format!("echo{threads}.sock")), programs.path("reply"));
        fs::write(&file, reply.encode_to_vec())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).arg(&socket).arg(&file).arg(threads.to_string());
        Ok(Self { process: Process::spawn(&mut command)?, socket })
    }

    pub(crate) async fn target(&self) -> Result<Grpc, Failure> {
        let client = KeyBrokerClient::new(connect(&self.socket).await?);
        Ok(Grpc { client, request: super::kms::request() })
    }
}

/// Serves until killed, on the same kinds of runtime as the broker.
pub(crate) fn serve(socket: &Path, reply: &Path, threads: usize) -> Result<(), Failure> {
    let reply = pb::GenerateDataKeyResponse::decode(fs::read(reply)?.as_slice())?;
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        n => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(n);
            builder
        }
    };
    builder.enable_all().build()?.block_on(async {
        let listener = UnixListener::bind(socket)?;
        let connections = stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(connection, _)| connection);
            Some((accepted, listener))
        });
        let serving = async {
            let service = KeyBrokerServer::new(Always(reply));
            Server::builder().serve_with_incoming(service, connections).await
        };
        // Spawned, as a broker's connections are: the thread that blocks on the runtime is none of its workers.
        Ok(tokio::spawn(serving).await??)
    })
}

struct Always(pb::GenerateDataKeyResponse);

#[tonic::async_trait]
impl KeyBroker for Always {
    async fn generate_data_key(
        &self,
        _: Request<pb::GenerateDataKeyRequest>,
    ) -> Result<Response<pb::GenerateDataKeyResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn generate_data_key_without_plaintext(
        &self,
        _: Request<pb::GenerateDataKeyWithoutPlaintextRequest>,
    ) -> Result<Response<pb::GenerateDataKeyWithoutPlaintextResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn decrypt(&self, _: Request<pb::DecryptRequest>) -> Result<Response<pb::DecryptResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn generate_random(
        &self,
        _: Request<pb::GenerateRandomRequest>,
    ) -> Result<Response<pb::GenerateRandomResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn describe_key(
        &self,
        _: Request<pb::DescribeKeyRequest>,
    ) -> Result<Response<pb::DescribeKeyResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn encrypt_message(
        &self,
        _: Request<pb::EncryptMessageRequest>,
    ) -> Result<Response<pb::EncryptMessageResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn decrypt_message(
        &self,
        _: Request<pb::DecryptMessageRequest>,
    ) -> Result<Response<pb::DecryptMessageResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn encrypt(&self, _: Request<pb::EncryptRequest>) -> Result<Response<pb::EncryptResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn re_encrypt(
        &self,
        _: Request<pb::ReEncryptRequest>,
    ) -> Result<Response<pb::ReEncryptResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn generate_data_key_pair(
        &self,
        _: Request<pb::GenerateDataKeyPairRequest>,
    ) -> Result<Response<pb::GenerateDataKeyPairResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn generate_data_key_pair_without_plaintext(
        &self,
        _: Request<pb::GenerateDataKeyPairWithoutPlaintextRequest>,
    ) -> Result<Response<pb::GenerateDataKeyPairWithoutPlaintextResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type EncryptMessageStreamStream = BoxStream<pb::EncryptMessageStreamResponse>;

    async fn encrypt_message_stream(
        &self,
        _: Request<Streaming<pb::EncryptMessageStreamRequest>>,
    ) -> Result<Response<Self::EncryptMessageStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }

    type DecryptMessageStreamStream = BoxStream<pb::DecryptMessageStreamResponse>;

    async fn decrypt_message_stream(
        &self,
        _: Request<Streaming<pb::DecryptMessageStreamRequest>>,
    ) -> Result<Response<Self::DecryptMessageStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }
}
