//! Connections, and one request through all stages.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::caller::Caller;
use crate::calls::{Call, Calls};
use crate::control;
use crate::error::ApiError;
use crate::fault::{Effect, Fate, Faults};
use crate::key::new_id;
use crate::operations::{Answer, Delivery, Kms, Operation, Request};
use crate::parameters::Parameters;
use crate::random;
use crate::sts::{self, RoleSessions};
use crate::wire::{self, HttpResponse, Target};

/// The state that all connections share.
pub(crate) struct Service {
    pub(crate) kms: Kms,
    pub(crate) faults: Faults,
    pub(crate) calls: Calls,
    pub(crate) role_sessions: RoleSessions,
}

/// The ids of one call.
struct Ids {
    request: String,
    event: String,
}

/// Why a connection closes without an answer.
#[derive(Debug)]
pub(crate) struct NoAnswer;

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an injected fault closes the connection")
    }
}

impl std::error::Error for NoAnswer {}

/// Accepts connections until `stop`.
pub(crate) async fn accept(
    listener: TcpListener,
    service: Arc<Service>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(connection(stream, Arc::clone(&service), stop.clone()));
            }
            // Most likely there are no file descriptors left: connections must end first.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Serves one connection; on `stop` it has a moment to finish its request.
async fn connection(stream: TcpStream, service: Arc<Service>, stop: CancellationToken) {
    let _slower_without = stream.set_nodelay(true);
    let serve = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { service.serve(request).await }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), serve);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = tokio::time::timeout(SHUTDOWN_GRACE, connection).await;
}

impl Service {
    async fn serve(self: Arc<Self>, request: http::Request<Incoming>) -> Result<HttpResponse, NoAnswer> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.map(http_body_util::Collected::to_bytes);
        if head.uri.path().starts_with(control::PREFIX) {
            return Ok(self.control(head, body.unwrap_or_default()).await);
        }
        let request_id = random::uuid().to_string();
        match body {
            Ok(body) => self.call(&head, &body, &request_id).await,
            Err(_) => Ok(wire::json_error(&ApiError::bare("RequestEntityTooLargeException"), &request_id)),
        }
    }

    /// Answers a test's control request. A change waits for the disk.
    async fn control(self: Arc<Self>, head: Parts, body: Bytes) -> HttpResponse {
        let answer = move || control::answer(&self, &head.method, head.uri.path(), &body);
        tokio::task::spawn_blocking(answer).await.unwrap_or_else(|error| control::failed(&error.to_string()))
    }

    /// One call of KMS or STS: logged, befallen by faults, performed, answered.
    async fn call(
        self: Arc<Self>,
        head: &Parts,
        body: &Bytes,
        request_id: &str,
    ) -> Result<HttpResponse, NoAnswer> {
        let target = Target::of(head, body);
        let caller = wire::access_key_id(head);
        let parameters = match target {
            Target::Kms(..) => Parameters::parse(body),
            Target::Sts(_) => Ok(Parameters::default()),
        };
        let (fate, fault_error) = self.fate(head, target.name());
        let call = Call {
            seq: 0,
            at: self.kms.store.now(),
            operation: target.name().to_owned(),
            request_id: request_id.to_owned(),
            event_id: random::uuid().to_string(),
            access_key_id: caller.as_ref().copied().unwrap_or_default().to_owned(),
            key_id: parameters.as_ref().ok().and_then(|parameters| parameters.key_id.clone()),
            encryption_context: parameters.as_ref().map(Parameters::context).unwrap_or_default(),
            error: None,
            dry_run: parameters.as_ref().is_ok_and(|parameters| parameters.dry_run == Some(true)),
            attested: parameters.as_ref().is_ok_and(|parameters| parameters.recipient.is_some()),
            fault: fate.effect.as_ref().map(ToString::to_string),
        };
        let event_id = call.event_id.clone();
        let seq = self.calls.arrive(call);
        if !fate.latency.is_zero() {
            tokio::time::sleep(fate.latency).await;
        }
        let result = match (&fate.effect, fault_error) {
            (_, Some(error)) => Err(error),
            (Some(Effect::Close), _) => return Err(NoAnswer),
            (Some(Effect::Hang), _) => match std::future::pending::<Infallible>().await {},
            (Some(Effect::Error(code)), _) => Err(ApiError::named(code)),
            _ => match (caller, parameters) {
                (Err(error), _) | (_, Err(error)) => Err(error),
                (Ok(access_key_id), Ok(parameters)) => {
                    let caller = self.role_sessions.caller(access_key_id, self.kms.store.account());
                    match &target {
                        Target::Kms(operation, _) => {
                            let ids = Ids { request: request_id.to_owned(), event: event_id };
                            self.perform(*operation, parameters, caller, ids).await
                        }
                        Target::Sts(action) => self.of_sts(action, head, body, &caller),
                    }
                }
            },
        };
        if let Err(error) = &result {
            self.calls.fail(seq, &error.code);
        }
        self.answer(&target, result, fate.effect, request_id)
    }

    /// The faults in force and those that the request asks for.
    fn fate(&self, head: &Parts, operation: &str) -> (Fate, Option<ApiError>) {
        let mut fate = self.faults.draw(operation);
        let Some(header) = head.headers.get("x-emulator-fault") else { return (fate, None) };
        let met = header.to_str().map_err(|error| error.to_string()).and_then(|text| fate.meet_header(text));
        let error = met.err().map(|error| ApiError::validation(format!("x-emulator-fault: {error}")));
        (fate, error)
    }

    async fn perform(
        self: &Arc<Self>,
        operation: Option<Operation>,
        parameters: Parameters,
        caller: Caller,
        ids: Ids,
    ) -> Result<Delivery, ApiError> {
        let operation = operation.ok_or_else(|| ApiError::bare("UnknownOperationException"))?;
        // Verifying a document takes a millisecond or more.
        let is_slow = operation.is_slow() || parameters.recipient.is_some();
        let service = Arc::clone(self);
        let perform = move || {
            operation.perform(&Request {
                kms: &service.kms,
                parameters: &parameters,
                caller: &caller,
                state: service.kms.store.snapshot(),
                id: &ids.request,
                event_id: &ids.event,
            })
        };
        if !is_slow {
            return perform();
        }
        let task = tokio::task::spawn_blocking(perform);
        task.await.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
    }

    fn of_sts(&self, action: &str, head: &Parts, body: &[u8], caller: &Caller) -> Result<Delivery, ApiError> {
        let form = std::str::from_utf8(body).ok().filter(|form| sts::action(form).is_some());
        let form = form.or(head.uri.query()).unwrap_or_default();
        self.role_sessions.perform(action, form, caller, self.kms.store.now()).map(Delivery::open)
    }

    /// The result as HTTP, falsified where a fault says so.
    fn answer(
        &self,
        target: &Target,
        result: Result<Delivery, ApiError>,
        effect: Option<Effect>,
        request_id: &str,
    ) -> Result<HttpResponse, NoAnswer> {
        if effect == Some(Effect::LoseAnswer) {
            return Err(NoAnswer);
        }
        let is_named = effect != Some(Effect::NoRequestId);
        let mut response = match (target, result) {
            (Target::Kms(..), Ok(delivery)) => match effect {
                Some(Effect::CorruptBody) => corrupt(&delivery.answer, request_id),
                effect => wire::json_answer(&self.falsify(delivery, effect.as_ref()), request_id),
            },
            (Target::Kms(..), Err(error)) => wire::json_error(&error, request_id),
            (Target::Sts(action), Ok(delivery)) => {
                let body = sts::answer(action, &delivery.answer, request_id);
                wire::xml_response(StatusCode::OK, body, request_id)
            }
            (Target::Sts(_), Err(error)) => {
                wire::xml_response(error.status(), sts::error(&error, request_id), request_id)
            }
        };
        if !is_named {
            response.headers_mut().remove("x-amzn-requestid");
        }
        Ok(response)
    }

    fn falsify(&self, delivery: Delivery, effect: Option<&Effect>) -> Answer {
        let Delivery { mut answer, withheld } = delivery;
        match effect {
            Some(Effect::WrongKeyId) => {
                let id = new_id(false);
                let arn = Value::from(self.kms.store.account().arn(&format!("key/{id}")));
                if let Some(key_id) = answer.get_mut("KeyId") {
                    *key_id = arn;
                } else if let Some(metadata) = answer.get_mut("KeyMetadata") {
                    metadata["KeyId"] = id.into();
                    metadata["Arn"] = arn;
                }
            }
            Some(Effect::MissingPlaintext) => {
                answer.remove("Plaintext");
            }
            Some(Effect::PlaintextDespiteRecipient) => {
                answer.extend(withheld.map(|plaintext| ("Plaintext".to_owned(), plaintext)));
            }
            Some(Effect::LongAnswer) => {
                answer.insert("Padding".to_owned(), "x".repeat(1 << 20).into());
            }
            Some(Effect::LongCiphertext) => {
                // Base64 of 6,147 bytes.
                answer.insert("CiphertextBlob".to_owned(), "AAAA".repeat(2_049).into());
            }
            Some(Effect::MissingCiphertextForRecipient) => {
                answer.remove("CiphertextForRecipient");
            }
            _ => {}
        }
        answer
    }
}

/// An answer cut off in the middle.
fn corrupt(answer: &Answer, request_id: &str) -> HttpResponse {
    let mut body = wire::answer_bytes(answer);
    body.truncate(body.len() / 2);
    if body.is_empty() {
        body.push(b'{');
    }
    wire::json_response(StatusCode::OK, body, request_id)
}

/// More than any valid request needs, in bytes.
const BODY_MAX: usize = 1 << 20;

/// How long to wait before accepting again after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// How long a request may go on after the emulator was told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
