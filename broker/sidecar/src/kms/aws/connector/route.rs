//! Which requests bypass proxies.

use std::net::IpAddr;

/// The sender of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client of KMS or STS.
    Service,
    /// A provider of credentials.
    Credentials,
}

/// Whether a request to this URI bypasses all proxies: any request to this machine or its link; and one in plain text from a provider of
/// credentials, whatever name the metadata service has.
pub(super) fn is_direct(uri: &str, asker: Asker) -> bool {
    let Ok(uri) = uri.parse::<http::Uri>() else { return false };
    let is_plain = uri.scheme_str() == Some("http");
    (asker == Asker::Credentials && is_plain) || uri.host().is_some_and(is_near)
}

fn is_near(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.is_loopback() || v4.is_link_local(),
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.is_loopback() || v4.is_link_local(),
            // AWS's own metadata services are at fd00:ec2::/32.
            None => v6.is_loopback() || v6.is_unicast_link_local() || v6.segments()[..2] == [0xfd00, 0x0ec2],
        },
        Err(_) => address.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    //! Requests to this machine or its link never go through a proxy; all others follow the environment.

    use super::*;

    #[test]
    fn metadata_services_are_asked_without_a_proxy_and_aws_is_not() {
        let near = [
            "http://169.254.169.254/latest/api/token",
            "http://[fd00:ec2::254]/latest/api/token",
            "http://169.254.170.2/v2/credentials/1",
            "https://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://127.0.0.1:51679/creds",
            "http://[::1]:51679/creds",
            "http://[::ffff:169.254.169.254]/",
            "http://LocalHost:80/",
        ];
        for uri in near {
            assert!(is_direct(uri, Asker::Service) && is_direct(uri, Asker::Credentials), "{uri}");
        }
        for uri in
            ["https://kms.us-west-2.amazonaws.com/", "https://10.0.0.1/", "https://[fd00:ec3::1]/", "?"]
        {
            assert!(!is_direct(uri, Asker::Service) && !is_direct(uri, Asker::Credentials), "{uri}");
        }
        let named = "http://imds.example.test/latest/api/token";
        assert!(is_direct(named, Asker::Credentials), "a metadata service by a name of its own");
        assert!(!is_direct(named, Asker::Service));
    }
}
