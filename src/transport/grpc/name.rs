//! The paths that a service's configured name stands for.
//!
//! A plain name makes `/name/Tun` and `/name/TunMulti`. One with a leading slash is a path of its own: `/a/b/Tun`, or
//! `/a/b/Tun|TunMulti` with both methods.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What is escaped in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// A service's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceName {
    /// The segments before the method.
    segments: Vec<String>,
    one: String,
    multi: String,
}

impl ServiceName {
    /// Takes a configured name apart.
    pub(super) fn new(service: &str) -> Self {
        let Some(path) = service.strip_prefix('/') else {
            let segments = vec![service.to_owned()];
            return Self { segments, one: "Tun".to_owned(), multi: "TunMulti".to_owned() };
        };
        let (before, methods) = path.rsplit_once('/').unwrap_or(("", path));
        let mut methods = methods.split('|');
        let one = methods.next().unwrap_or_default().to_owned();
        let multi = methods.next().map_or_else(|| one.clone(), str::to_owned);
        Self { segments: before.split('/').map(str::to_owned).collect(), one, multi }
    }

    /// The path that a client asks for, escaped as Xray and sing-box do it.
    pub(super) fn path(&self, multi: bool) -> String {
        let mut path = String::new();
        let method = if multi { &self.multi } else { &self.one };
        for segment in self.segments.iter().chain([method]) {
            path.push('/');
            path.extend(utf8_percent_encode(segment, SEGMENT));
        }
        path
    }

    /// Whether a path is one of this service's: escaped in any way or not at all, since peers differ in that.
    pub(super) fn matches(&self, path: &str) -> bool {
        let asked: Vec<u8> = percent_decode_str(path).collect();
        [&self.one, &self.multi].into_iter().any(|method| {
            let plain = format!("/{}/{method}", self.segments.join("/"));
            asked == plain.as_bytes() || path.as_bytes() == plain.as_bytes()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_make_the_paths_that_peers_ask_for() {
        for (service, one, multi) in [
            ("GunService", "/GunService/Tun", "/GunService/TunMulti"),
            ("", "//Tun", "//TunMulti"),
            ("a/b c", "/a%2Fb%20c/Tun", "/a%2Fb%20c/TunMulti"),
            ("a+b=c:d@e&f$g;h,i", "/a+b=c:d@e&f$g%3Bh%2Ci/Tun", "/a+b=c:d@e&f$g%3Bh%2Ci/TunMulti"),
            ("/my/path/One|Many", "/my/path/One", "/my/path/Many"),
            ("/my/p h/One", "/my/p%20h/One", "/my/p%20h/One"),
            ("/One", "//One", "//One"),
        ] {
            let name = ServiceName::new(service);
            assert_eq!((name.path(false), name.path(true)), (one.to_owned(), multi.to_owned()), "{service}");
            assert!(name.matches(one) && name.matches(multi), "{service}");
            assert!(!name.matches("/Other/Tun") && !name.matches("") && !name.matches("/"), "{service}");
        }
    }

    #[test]
    fn a_server_takes_a_name_escaped_or_not() {
        let name = ServiceName::new("a/b%20c");
        assert!(name.matches("/a/b%20c/Tun") && name.matches("/a%2Fb%2520c/TunMulti"));
        assert!(!name.matches("/a/b%20c/Other"));
    }
}
