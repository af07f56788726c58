//! Sets of domain patterns.

use crate::config::DomainPattern;
use regex_lite::Regex;
use std::collections::HashSet;

/// A set of domain patterns. Full names and suffixes are hash lookups, one a label; substrings and expressions are tried
/// in turn after them.
#[derive(Debug, Default)]
pub struct DomainSet {
    full: HashSet<Box<str>>,
    suffixes: HashSet<Box<str>>,
    substrings: Vec<Box<str>>,
    expressions: Vec<Regex>,
}

impl DomainSet {
    /// Makes a set of `patterns`, whose texts are in lower case.
    ///
    /// # Errors
    /// The first expression that does not compile, and why.
    pub fn new(patterns: &[DomainPattern]) -> Result<Self, (String, String)> {
        let mut set = Self::default();
        for pattern in patterns {
            match pattern {
                DomainPattern::Full(name) => {
                    set.full.insert(name.as_str().into());
                }
                DomainPattern::Suffix(name) => {
                    set.suffixes.insert(name.as_str().into());
                }
                DomainPattern::Substring(text) => set.substrings.push(text.as_str().into()),
                DomainPattern::Regexp(text) => {
                    let expression = Regex::new(text).map_err(|error| (text.clone(), error.to_string()))?;
                    set.expressions.push(expression);
                }
            }
        }
        Ok(set)
    }

    /// Whether a pattern matches `name`, which is in lower case and has no trailing dot.
    pub fn contains(&self, name: &str) -> bool {
        self.full.contains(name)
            || self.has_suffix(name)
            || self.substrings.iter().any(|text| name.contains(&**text))
            || self.expressions.iter().any(|expression| expression.is_match(name))
    }

    fn has_suffix(&self, name: &str) -> bool {
        if self.suffixes.is_empty() {
            return false;
        }
        let mut rest = Some(name);
        while let Some(suffix) = rest {
            if self.suffixes.contains(suffix) {
                return true;
            }
            rest = suffix.split_once('.').map(|(_, tail)| tail);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DomainPattern::{Full, Regexp, Substring, Suffix};

    fn matches(pattern: DomainPattern, name: &str) -> bool {
        DomainSet::new(&[pattern]).expect("it compiles").contains(name)
    }

    #[test]
    fn each_kind_of_pattern() {
        let table = [
            (Full("example.com".into()), &["example.com"][..], &["www.example.com", "example.co", "com"][..]),
            (
                Suffix("example.com".into()),
                &["example.com", "www.example.com", "a.b.example.com"],
                &["badexample.com", "example.com.evil", "com", "ww.xample.com"],
            ),
            (Suffix("com".into()), &["com", "a.com"], &["acom", "com.a"]),
            (Substring("ample".into()), &["example.com", "ample", "a.sample.b"], &["exampel.com"]),
            (Regexp(r"^ad[0-9]*\.".into()), &["ad.x", "ad12.x"], &["bad.x", "adx.y"]),
            (Regexp("tracker".into()), &["a.tracker.b"], &["track.er"]),
        ];
        for (pattern, hits, misses) in table {
            for name in hits {
                assert!(matches(pattern.clone(), name), "{pattern:?} {name}");
            }
            for name in misses {
                assert!(!matches(pattern.clone(), name), "{pattern:?} {name}");
            }
        }
    }

    #[test]
    fn any_pattern_of_a_set_is_enough() {
        let set = DomainSet::new(&[Full("a.b".into()), Suffix("c.d".into()), Substring("zz".into())])
            .expect("a set");
        for name in ["a.b", "x.c.d", "fizz.io"] {
            assert!(set.contains(name), "{name}");
        }
        assert!(!set.contains("b") && !set.contains("d"));
    }

    #[test]
    fn a_broken_expression_is_named() {
        let (pattern, reason) = DomainSet::new(&[Regexp("(".into())]).expect_err("it does not compile");
        assert!(pattern == "(" && !reason.is_empty());
    }
}
