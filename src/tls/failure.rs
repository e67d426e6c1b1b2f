//! Why a TLS connection failed, in the words of the report and in one line for people.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerMisbehaved};
use std::fmt;

/// Why TLS failed. The connection cannot be used any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    pub kind: TlsErrorKind,
    /// One line: what is wrong, and what to do where there is something.
    pub detail: String,
}

/// The word in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsErrorKind {
    /// The peer's certificate was not accepted, or there was none.
    Certificate,
    /// The peer ended the connection with an alert.
    Alert,
    /// The two sides have no version, cipher or application protocol in common.
    Incompatible,
    /// Bytes that are no TLS, or break its rules.
    Protocol,
    /// The stream ended within the handshake.
    Truncated,
}

impl TlsErrorKind {
    pub const ALL: [Self; 5] = [Self::Certificate, Self::Alert, Self::Incompatible, Self::Protocol, Self::Truncated];

    /// As in the ledger of a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "tls_certificate",
            Self::Alert => "tls_alert",
            Self::Incompatible => "tls_incompatible",
            Self::Protocol => "tls_protocol",
            Self::Truncated => "tls_truncated",
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for TlsError {}

impl TlsError {
    /// The peer's stream ended before the handshake did.
    pub fn truncated() -> Self {
        Self { kind: TlsErrorKind::Truncated, detail: "the connection was closed within the TLS handshake".into() }
    }
}

/// As a client sees it: the peer is the server.
impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        Self::explained(error, false)
    }
}

impl TlsError {
    /// `insecure`: nothing was verified, so that this cannot be what to do.
    pub(super) fn explained(error: Error, insecure: bool) -> Self {
        let (kind, detail) = match error {
            Error::InvalidCertificate(why) => (TlsErrorKind::Certificate, certificate(&why)),
            Error::NoCertificatesPresented => {
                (TlsErrorKind::Certificate, "the peer showed no certificate; it has to".to_owned())
            }
            Error::AlertReceived(alert) => (TlsErrorKind::Alert, alerted(alert, insecure)),
            Error::NoApplicationProtocol => {
                (TlsErrorKind::Incompatible, "no application protocol in common; see --alpn".to_owned())
            }
            Error::PeerIncompatible(why) => (TlsErrorKind::Incompatible, format!("nothing in common: {why:?}")),
            // Our library knows no name for such a signature under TLS 1.2.
            Error::PeerMisbehaved(PeerMisbehaved::SignedKxWithWrongAlgorithm) => (
                TlsErrorKind::Incompatible,
                "the server's certificate has a kind of key (RSASSA-PSS) that is not known here under TLS 1.2; \
                 let it speak TLS 1.3, or show another"
                    .to_owned(),
            ),
            Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
                (TlsErrorKind::Protocol, "what the peer sent is no TLS; is its port one without?".to_owned())
            }
            other => (TlsErrorKind::Protocol, format!("TLS: {other}")),
        };
        Self { kind, detail }
    }
}

/// rustls has no word of its own for this error of webpki, only its text.
pub(super) const CA_AS_SERVER: &str = "CaUsedAsEndEntity";

fn certificate(why: &CertificateError) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, Other, UnknownIssuer,
    };
    match why {
        UnknownIssuer => "the peer's certificate has no issuer that is trusted here; \
                          name one with --ca FILE, or verify nothing with --insecure"
            .into(),
        // Of the certificate or of the handshake: of an issuer with the same name, or with a key that is too short.
        BadSignature => "the peer's certificate has no issuer that is trusted here: the one of that name has another \
                         key, or a key is RSA of less than 2048 bits; name one with --ca FILE, replace the \
                         certificate, or verify nothing with --insecure"
            .into(),
        NotValidForNameContext { expected, presented } if presented.is_empty() => format!(
            "the server's certificate names no host (it has no subjectAltName), so that it cannot be that of {}; \
             replace it, or verify nothing with --insecure",
            expected.to_str()
        ),
        NotValidForNameContext { expected, presented } => {
            let presented = presented.iter().map(|name| bare_name(name)).collect::<Vec<_>>().join(", ");
            format!(
                "the server's certificate is for {presented}, not for {}; \
                 give the name that it has with --server-name, or verify nothing with --insecure",
                expected.to_str()
            )
        }
        NotValidForName => "the server's certificate is for another name; \
                            give the name that it has with --server-name, or verify nothing with --insecure"
            .into(),
        ExpiredContext { time, not_after } => format!(
            "the peer's certificate expired {} ago; renew it, or verify nothing with --insecure",
            ago(time.as_secs().saturating_sub(not_after.as_secs()))
        ),
        Expired => "the peer's certificate has expired; renew it, or verify nothing with --insecure".into(),
        NotValidYet | NotValidYetContext { .. } => {
            "the peer's certificate is not valid yet; is the clock right? --insecure verifies nothing".into()
        }
        Other(why) if why.0.to_string() == CA_AS_SERVER => {
            "the peer's certificate is that of an issuer (CA:TRUE), and not one that is trusted here; \
             name it with --ca FILE, or verify nothing with --insecure"
                .into()
        }
        other => {
            format!(
                "the peer's certificate cannot be verified: {}; replace it, or verify nothing with --insecure",
                unverified(other)
            )
        }
    }
}

/// What about a certificate cannot be verified, or is not valid.
pub(super) fn unverified(why: &CertificateError) -> String {
    let text = format!("{why:?}");
    // rustls has several variants of it, with lists of numbers, and for the rest no word of its own, but webpki's.
    if text.starts_with("UnsupportedSignatureAlgorithm") {
        return "it, or one above it, is signed with what is not accepted here (SHA-1, MD5, P-521, Ed448)".to_owned();
    }
    let CertificateError::Other(other) = why else {
        return match why {
            CertificateError::BadEncoding => "it is damaged".to_owned(),
            CertificateError::UnhandledCriticalExtension => critical(),
            other => format!("{other}"),
        };
    };
    match other.0.to_string().as_str() {
        "UnsupportedCertVersion" => "it is of X.509 version 1 or 2, not 3".to_owned(),
        "UnsupportedCriticalExtension" => critical(),
        word => word.to_owned(),
    }
}

fn critical() -> String {
    "it has a critical extension that is not known here".to_owned()
}

/// `DnsName("localhost")` and the like as people write it.
fn bare_name(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')')).trim_matches('"')
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} minutes", seconds / 60),
        7200..=172_799 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn alerted(alert: AlertDescription, insecure: bool) -> String {
    let word = match alert {
        AlertDescription::CertificateRequired => "it wants a certificate; give --tls-cert and --tls-key",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA => "it does not accept our certificate",
        AlertDescription::NoApplicationProtocol => "it speaks none of the application protocols; see --alpn",
        AlertDescription::ProtocolVersion => "it speaks no version of TLS that we speak",
        AlertDescription::UnrecognisedName => "it does not know that name; see --server-name",
        AlertDescription::HandshakeFailure if insecure => {
            "nothing in common, or it wants a certificate (--tls-cert, --tls-key)"
        }
        AlertDescription::HandshakeFailure => {
            "nothing in common, or it wants a certificate (--tls-cert, --tls-key), or its own is of a kind that cannot \
             be verified here (P-521, Ed448 and rarer; --insecure takes any)"
        }
        _ => "",
    };
    let behind = if word.is_empty() { String::new() } else { format!(": {word}") };
    format!("the peer ended TLS with alert {alert:?}{behind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_people_write_them() {
        assert_eq!(bare_name("DnsName(\"localhost\")"), "localhost");
        assert_eq!(bare_name("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!((ago(60), ago(7200), ago(400_000)), ("60 s".into(), "2 hours".into(), "4 days".into()));
    }
}
