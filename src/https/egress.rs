//! The egress proxy that the environment names for everything that is called over TLS.
//!
//! `HTTPS_PROXY`, else `ALL_PROXY`, in capital or small letters; `NO_PROXY` names exceptions. Read
//! once and in one place, so that the API, LWA and the commands take the same way. Plain HTTP is
//! for loopback only, which no egress proxy can reach.

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use std::env;

/// Why the proxy that the environment names cannot be used. Holds no part of its URL but the
/// scheme: there may be a password in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// A protocol that is not spoken.
    #[error("{variable}: the scheme {scheme} is not supported, use http:// or https://")]
    Scheme {
        /// The variable.
        variable: &'static str,
        /// What its value begins with.
        scheme: String,
    },
    /// No URL.
    #[error("{variable} is not the URL of a proxy, such as http://proxy.example.com:3128")]
    Malformed {
        /// The variable.
        variable: &'static str,
    },
}

/// The way out of this machine.
#[derive(Default)]
pub struct Egress {
    /// The proxy's URL, the exceptions, and what both of them select.
    proxy: Option<(String, String, Matcher)>,
}

impl Egress {
    /// What the process's environment names.
    ///
    /// # Errors
    /// When it names a proxy that cannot be used.
    pub fn from_env() -> Result<Self, EgressError> {
        // What is no text is refused like any other value that is no URL.
        Self::of(|name| Some(env::var_os(name)?.to_string_lossy().into_owned()))
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self, EgressError> {
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some((name, variable(name)?.trim().to_owned())))
        };
        let is_set = |(_, value): &(&str, String)| !value.is_empty();
        let named = first(["HTTPS_PROXY", "https_proxy"]).filter(is_set);
        let named = named.or_else(|| first(["ALL_PROXY", "all_proxy"]).filter(is_set));
        let Some((name, value)) = named else { return Ok(Self::default()) };
        let url = checked(name, &value)?;
        let exceptions = first(["NO_PROXY", "no_proxy"]).map(|(_, value)| value);
        let exceptions = exceptions.unwrap_or_default();
        let matcher = Matcher::builder().https(url.clone()).no(exceptions.clone()).build();
        Ok(Self { proxy: Some((url, exceptions, matcher)) })
    }

    /// The proxy on the way to `uri`, if there is one.
    pub fn proxy_for(&self, uri: &Uri) -> Option<Intercept> {
        self.proxy.as_ref().and_then(|(_, _, matcher)| matcher.intercept(uri))
    }

    /// The same for an HTTP client, which else would ask the environment by itself.
    ///
    /// # Errors
    /// When the client reads the URL in another way.
    pub(super) fn apply(
        &self,
        builder: reqwest::ClientBuilder,
    ) -> Result<reqwest::ClientBuilder, reqwest::Error> {
        let Some((url, exceptions, _)) = &self.proxy else { return Ok(builder.no_proxy()) };
        let exceptions = reqwest::NoProxy::from_string(exceptions);
        Ok(builder.proxy(reqwest::Proxy::https(url)?.no_proxy(exceptions)))
    }
}

/// The proxy's URL with its scheme.
fn checked(variable: &'static str, value: &str) -> Result<String, EgressError> {
    let url = match value.split_once("://") {
        None => format!("http://{value}"),
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            scheme @ ("http" | "https") => format!("{scheme}://{rest}"),
            _ => return Err(EgressError::Scheme { variable, scheme: scheme.to_owned() }),
        },
    };
    let is_usable = url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|h| !h.is_empty()));
    if is_usable { Ok(url) } else { Err(EgressError::Malformed { variable }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(variables: &[(&str, &str)]) -> Result<Egress, EgressError> {
        Egress::of(|name| {
            variables.iter().find(|(have, _)| *have == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn proxy(variables: &[(&str, &str)], target: &str) -> Option<String> {
        let egress = egress(variables).expect("usable");
        egress.proxy_for(&target.parse().expect("a uri")).map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn the_variables_are_read_as_others_read_them() {
        let amazon = "https://advertising-api.amazon.com/";
        for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            let found = proxy(&[(variable, " proxy.test:3128 ")], amazon);
            assert_eq!(found.as_deref(), Some("http://proxy.test:3128/"), "{variable}");
        }
        let (https, all) = (("HTTPS_PROXY", "https://u:p@one.test"), ("ALL_PROXY", "two.test"));
        assert_eq!(proxy(&[all, https], amazon).as_deref(), Some("https://one.test/"));
        assert_eq!(proxy(&[https, ("NO_PROXY", "x,.amazon.com")], amazon), None);
        assert_eq!(proxy(&[https], "http://127.0.0.1/"), None, "plain HTTP is for loopback");
        assert_eq!(proxy(&[("HTTPS_PROXY", ""), ("HTTP_PROXY", "three.test")], amazon), None);
    }

    #[test]
    fn what_is_not_spoken_is_refused_by_name_and_without_the_password() {
        let no_text = [("HTTPS_PROXY", "http://clerk:p\u{fffd}@proxy.test:3128")];
        assert!(egress(&no_text).is_err(), "not the way without a proxy");
        for scheme in ["socks5", "socks5h", "SOCKS4", "ftp"] {
            let url = format!("{scheme}://clerk:s3cret@proxy.test:1080");
            let error = egress(&[("ALL_PROXY", &url)]).err().expect("refused").to_string();
            assert!(error.contains("ALL_PROXY") && error.contains(scheme), "{error}");
            assert!(!error.contains("s3cret") && !error.contains("clerk"), "{error}");
        }
        for url in ["http://", "http://clerk:s3cret@", "clerk:s3 cret@proxy", "http://a:b:c"] {
            let error = egress(&[("https_proxy", url)]).err().expect(url).to_string();
            assert!(error.contains("https_proxy") && !error.contains("cret"), "{error}");
        }
    }
}
