//! How a call reaches the broker, in the words of configuration, policy, records, metrics and the command
//! line.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::invalid::InvalidValue;

/// How a call reaches the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// The workloads' unix socket.
    Unix,
    /// TCP with mutual TLS.
    Tls,
    /// Plaintext TCP, on loopback only.
    InsecureTcp,
    /// vsock(7), from virtual machines on the same host.
    Vsock,
}

impl Transport {
    /// Every transport.
    pub const ALL: [Self; 4] = [Self::Unix, Self::Tls, Self::InsecureTcp, Self::Vsock];

    /// The one word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tls => "tls",
            Self::InsecureTcp => "insecure_tcp",
            Self::Vsock => "vsock",
        }
    }
}

impl FromStr for Transport {
    type Err = InvalidValue;

    /// The transport of this name.
    fn from_str(name: &str) -> Result<Self, InvalidValue> {
        Self::ALL.into_iter().find(|transport| transport.name() == name).ok_or_else(|| {
            InvalidValue(match name {
                "tcp" => {
                    "\"tcp\" is not a transport: write tls for mutual TLS, insecure_tcp for plaintext".into()
                }
                _ => format!("{name:?} is not a transport: write unix, tls, insecure_tcp or vsock"),
            })
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Transport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    //! Each transport is found by its name; `tcp`, which would be either of two, is refused with what to
    //! write.

    use super::*;

    #[test]
    fn names() {
        for transport in Transport::ALL {
            assert_eq!(transport.name().parse(), Ok(transport));
            assert_eq!(serde_json::to_value(transport).expect("JSON"), transport.name());
        }
        let Err(InvalidValue(why)) = "tcp".parse::<Transport>() else { panic!("accepted") };
        assert!(why.contains("tls") && why.contains("insecure_tcp"), "{why}");
    }
}
