//! The address of KMS, as the SDK finds it by region, partition, FIPS, dual stack, environment and configuration.

use std::error::Error;
use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::{Arc, OnceLock};

use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// The URI to which `client` would send its requests. Nothing is sent for this.
pub(super) async fn of_kms(client: &aws_sdk_kms::Client) -> Option<http::Uri> {
    let found = Arc::new(OnceLock::new());
    let probe = EndpointProbe(Arc::clone(&found));
    // It always ends with the probe's own error.
    let _ = client.describe_key().key_id("alias/none").customize().interceptor(probe).send().await;
    found.get()?.parse().ok()
}

/// Records where a request would go and stops it before it is signed.
#[derive(Debug)]
struct EndpointProbe(Arc<OnceLock<String>>);

impl Intercept for EndpointProbe {
    fn name(&self) -> &'static str {
        "EndpointProbe"
    }

    fn read_before_signing(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _ = self.0.set(context.request().uri().to_owned());
        Err("this request is not to be sent".into())
    }
}

/// The address this host would send from. Connecting a UDP socket sends nothing; resolving a name blocks.
pub(super) fn local_address_toward(uri: &http::Uri) -> Option<String> {
    let port = uri.port_u16().unwrap_or(443);
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let address = (host, port).to_socket_addrs().ok()?.next()?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

#[cfg(test)]
mod tests {
    //! In every partition of AWS, records and spans name the host that the SDK calls, and ARNs have that partition.

    use aws_config::BehaviorVersion;
    use aws_sdk_kms::config::{Builder, Credentials, Region};
    use key_broker_core::{KeyId, partition_of};
    use key_broker_trail::record::AwsCaller;

    use super::*;

    #[derive(Clone, Copy)]
    enum Kind {
        Plain,
        Fips,
        DualStack,
        Both,
    }

    async fn host(region: &str, kind: Kind) -> String {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .credentials_provider(Credentials::new("AKIATEST", "test", None, None, "test"))
            .use_fips(matches!(kind, Kind::Fips | Kind::Both))
            .use_dual_stack(matches!(kind, Kind::DualStack | Kind::Both));
        let client = aws_sdk_kms::Client::from_conf(config.build());
        let uri = of_kms(&client).await;
        uri.as_ref().and_then(http::Uri::host).unwrap_or("none").to_owned()
    }

    #[tokio::test]
    async fn hosts_and_arns_are_of_the_partition() {
        use Kind::{Both, DualStack, Fips, Plain};
        let table = [
            ("us-west-2", Plain, "kms.us-west-2.amazonaws.com", "aws"),
            ("us-west-2", Fips, "kms-fips.us-west-2.amazonaws.com", "aws"),
            ("us-west-2", DualStack, "kms.us-west-2.api.aws", "aws"),
            ("us-west-2", Both, "kms-fips.us-west-2.api.aws", "aws"),
            ("il-central-1", Plain, "kms.il-central-1.amazonaws.com", "aws"),
            ("cn-north-1", Plain, "kms.cn-north-1.amazonaws.com.cn", "aws-cn"),
            ("cn-northwest-1", DualStack, "kms.cn-northwest-1.api.amazonwebservices.com.cn", "aws-cn"),
            ("us-gov-west-1", Plain, "kms.us-gov-west-1.amazonaws.com", "aws-us-gov"),
            ("us-gov-east-1", Fips, "kms-fips.us-gov-east-1.amazonaws.com", "aws-us-gov"),
            ("us-gov-west-1", Both, "kms-fips.us-gov-west-1.api.aws", "aws-us-gov"),
            ("eusc-de-east-1", Plain, "kms.eusc-de-east-1.amazonaws.eu", "aws-eusc"),
            ("us-iso-east-1", Plain, "kms.us-iso-east-1.c2s.ic.gov", "aws-iso"),
            ("us-isob-east-1", Plain, "kms.us-isob-east-1.sc2s.sgov.gov", "aws-iso-b"),
            ("eu-isoe-west-1", Plain, "kms.eu-isoe-west-1.cloud.adc-e.uk", "aws-iso-e"),
            ("us-isof-south-1", Plain, "kms.us-isof-south-1.csp.hci.ic.gov", "aws-iso-f"),
        ];
        for (region, kind, wanted, partition) in table {
            assert_eq!(host(region, kind).await, wanted, "{region}");
            assert_eq!(partition_of(region), partition);
            let caller = AwsCaller {
                account_id: "111122223333".into(),
                partition: partition.into(),
                region: region.into(),
                kms_host: wanted.into(),
                source_address: String::new(),
            };
            let id = KeyId::parse("mrk-1234abcd12ab34cd56ef1234567890ab").expect("an id");
            let arn = caller.key_arn(&id).expect("an ARN");
            let resource = format!(":kms:{region}:111122223333:key/{}", id.as_str());
            assert_eq!(arn.as_str(), format!("arn:{partition}{resource}"));
            assert!(arn.is_multi_region() && arn.region() == region, "{arn}");
        }
    }

    #[test]
    fn this_hosts_address_is_of_the_endpoints_own_family() {
        for (url, wanted) in [("http://127.0.0.1:4566", "127.0.0.1"), ("http://[::1]:4566/", "::1")] {
            let found = local_address_toward(&url.parse().expect("a URL"));
            // A machine may have no IPv6.
            assert!(found.as_deref().is_none_or(|found| found == wanted), "{url}: {found:?}");
        }
    }
}
