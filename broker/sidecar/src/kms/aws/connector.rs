//! How the AWS SDK's HTTP requests leave this machine: by the proxies that the environment names, but for what is on this machine or
//! its link. A metadata service gives credentials in plain text to whoever asks from here: neither its requests nor its answers are any
//! proxy's.

mod expiration;
mod route;

use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, ConnectorBuilder, tls};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;

use route::{Asker, is_direct};

/// How long a metadata service may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// To take a connection.
    pub(crate) connect: Duration,
    /// To answer a request.
    pub(crate) read: Duration,
}

/// For KMS and STS.
pub(super) fn for_services() -> SharedHttpClient {
    SharedHttpClient::new(Routes::new(Asker::Service, None))
}

/// For whatever gives credentials.
pub(super) fn for_credentials(patience: Patience) -> SharedHttpClient {
    SharedHttpClient::new(Routes::new(Asker::Credentials, Some(patience)))
}

#[derive(Debug)]
struct Routes {
    proxied: SharedHttpClient,
    direct: SharedHttpClient,
    asker: Asker,
    patience: Option<Patience>,
}

impl Routes {
    fn new(asker: Asker, patience: Option<Patience>) -> Self {
        let (proxied, direct) = (client(ProxyConfig::from_env()), client(ProxyConfig::disabled()));
        Self { proxied, direct, asker, patience }
    }
}

/// As the SDK's own, with these proxies.
fn client(proxies: ProxyConfig) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc));
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.set_proxy_config(Some(proxies.clone()));
        connector.build()
    })
}

impl HttpClient for Routes {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let patient = self.patience.map(|patience| {
            let connect = settings.connect_timeout().unwrap_or_default().max(patience.connect);
            let read = settings.read_timeout().unwrap_or_default().max(patience.read);
            HttpConnectorSettings::builder().connect_timeout(connect).read_timeout(read).build()
        });
        SharedHttpConnector::new(Routed {
            proxied: self.proxied.http_connector(settings, components),
            direct: self.direct.http_connector(patient.as_ref().unwrap_or(settings), components),
            asker: self.asker,
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.proxied.validate_base_client_config(components, config)
    }
}

#[derive(Debug)]
struct Routed {
    proxied: SharedHttpConnector,
    direct: SharedHttpConnector,
    asker: Asker,
}

impl HttpConnector for Routed {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let is_metadata = request.method() == "GET" && matches!(self.asker, Asker::Credentials);
        let connector = if is_direct(request.uri(), self.asker) { &self.direct } else { &self.proxied };
        let answer = connector.call(request);
        if !is_metadata {
            return answer;
        }
        HttpConnectorFuture::new(async move { expiration::in_utc(answer.await?).await })
    }
}
