//! The address that is fetched.

use crate::addr::{Host, Target};
use crate::error::{Error, ErrorKind};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The longest address, in bytes.
const LONGEST: usize = 8192;
/// What a request's first line cannot hold.
const UNFIT: &AsciiSet = &CONTROLS.add(b' ');

/// An `http://` or `https://` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// Whether it is `https`.
    pub(super) tls: bool,
    /// Where it is.
    pub(super) target: Target,
    /// The same as HTTP names it: with a port that is not the usual one.
    pub(super) authority: String,
    /// The path and the query.
    pub(super) path: String,
}

impl Url {
    /// Reads an address.
    ///
    /// # Errors
    /// `Misuse`.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(refused("the address is too long"));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refused("the address has no scheme"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(refused("the address is neither http:// nor https://")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(refused("the address holds a user, which is not supported"));
        }
        let usual = if tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of `[::1]` is no port's.
            Some((host, port)) if !port.ends_with(']') => {
                let port = if port.is_empty() { Some(usual) } else { port.parse().ok() };
                let port = port.filter(|port| *port != 0);
                (host, port.ok_or_else(|| refused("the address has a port that is none"))?)
            }
            _ => (authority, usual),
        };
        let bracketed = host.starts_with('[');
        let host = Host::parse(host).filter(|host| bracketed == host.ip().is_some_and(|ip| ip.is_ipv6()));
        let host = host.ok_or_else(|| refused("the address has no host that can be asked for"))?;
        let name = match &host {
            Host::Ip(ip) if ip.is_ipv6() => format!("[{ip}]"),
            host => host.to_string(),
        };
        let authority = if port == usual { name } else { format!("{name}:{port}") };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{}", utf8_percent_encode(path, UNFIT));
        Ok(Self { tls, target: Target::new(host, port), authority, path })
    }
}

fn refused(text: &'static str) -> Error {
    Error::new(ErrorKind::Misuse, text)
        .with_hint("give one such as http://www.gstatic.com/generate_204, a name in its ASCII form (xn--...)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (text, tls, target, authority, path) in [
            ("http://a.example", false, "a.example:80", "a.example", "/"),
            ("HTTPS://A.example:443/x?y#z", true, "a.example:443", "a.example", "/x?y"),
            ("http://a.example:8080?q", false, "a.example:8080", "a.example:8080", "/?q"),
            ("http://[2001:db8::1]/", false, "[2001:db8::1]:80", "[2001:db8::1]", "/"),
            (
                "https://[2001:db8::1]:8443/é x",
                true,
                "[2001:db8::1]:8443",
                "[2001:db8::1]:8443",
                "/%C3%A9%20x",
            ),
            ("http://192.0.2.1:/", false, "192.0.2.1:80", "192.0.2.1", "/"),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!(
                (url.tls, url.authority.as_str(), url.path.as_str()),
                (tls, authority, path),
                "{text}"
            );
            assert_eq!(url.target.to_string(), target);
        }
    }

    #[test]
    fn what_is_no_address_is_misuse() {
        let long = format!("http://a.example/{}", "x".repeat(LONGEST));
        for text in [
            "",
            "a.example",
            "ftp://a.example",
            "http://",
            "http:///x",
            "http://u:p@a.example",
            "http://a:0",
            "http://a:99999",
            "http://a:x/",
            "http://2001:db8::1/",
            "http://[a.example]/",
            "http://é.example/",
            "http://a b/",
            "http://a\r\nb/",
            &long,
        ] {
            assert_eq!(Url::parse(text).map_err(|error| error.kind), Err(ErrorKind::Misuse), "{text}");
        }
        assert_eq!(Url::parse("http://a/\r\nX: y").expect("encoded").path, "/%0D%0AX:%20y");
    }
}
