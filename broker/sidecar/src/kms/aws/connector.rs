//! The HTTP clients of the AWS SDK. They use the proxies that the environment names, except for this machine and its link: a metadata
//! service gives credentials in plain text to anyone on this machine, so neither its requests nor its answers may pass through a proxy.

mod encrypted;
mod expiration;
mod route;

use std::sync::Arc;
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
use hyper_util::client::proxy::matcher::Matcher;

use encrypted::Encrypted;
pub(crate) use encrypted::Encryption;
use route::{Asker, is_direct};

/// Time limits for a metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// For accepting a connection.
    pub(crate) connect: Duration,
    /// For answering a request.
    pub(crate) read: Duration,
}

/// The client for KMS and STS.
pub(super) fn for_services() -> SharedHttpClient {
    SharedHttpClient::new(Routes::new(Asker::Service, None))
}

/// The client for sources of credentials.
pub(super) fn for_credentials(patience: Patience) -> SharedHttpClient {
    SharedHttpClient::new(Routes::new(Asker::Credentials, Some(patience)))
}

#[derive(Debug)]
struct Routes {
    proxied: SharedHttpClient,
    direct: SharedHttpClient,
    /// For requests without a proxy to KMS and STS.
    encrypted: Arc<Encrypted>,
    /// Which requests go through a proxy, according to the environment.
    matcher: Arc<Matcher>,
    asker: Asker,
    patience: Option<Patience>,
}

impl Routes {
    fn new(asker: Asker, patience: Option<Patience>) -> Self {
        let (proxied, direct) = (client(ProxyConfig::from_env()), client(ProxyConfig::disabled()));
        let matcher = Arc::new(Matcher::from_env());
        let encrypted = Arc::new(Encrypted::new());
        Self { proxied, direct, encrypted, matcher, asker, patience }
    }
}

/// Like the SDK's own client, with these proxies.
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
            encrypted: (self.asker == Asker::Service)
                .then(|| (Arc::clone(&self.encrypted), settings.clone())),
            matcher: Arc::clone(&self.matcher),
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
    encrypted: Option<(Arc<Encrypted>, HttpConnectorSettings)>,
    matcher: Arc<Matcher>,
    asker: Asker,
}

impl Routed {
    /// Whether a request goes through one of the environment's proxies.
    fn goes_by_proxy(&self, uri: &str) -> bool {
        !is_direct(uri, self.asker) && uri.parse().is_ok_and(|uri| self.matcher.intercept(&uri).is_some())
    }
}

impl HttpConnector for Routed {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let is_metadata = request.method() == "GET" && matches!(self.asker, Asker::Credentials);
        let uri = request.uri();
        let answer = match &self.encrypted {
            Some((encrypted, settings)) if uri.starts_with("https:") && !self.goes_by_proxy(uri) => {
                encrypted.with(settings).call(request)
            }
            _ if is_direct(uri, self.asker) => self.direct.call(request),
            _ => self.proxied.call(request),
        };
        if !is_metadata {
            return answer;
        }
        HttpConnectorFuture::new(async move { expiration::in_utc(answer.await?).await })
    }
}
