//! Which requests are answered.
//!
//! In this order: the Host header names this page, so that no name which somebody else has pointed at this machine
//! leads here (DNS rebinding); the method is GET or HEAD; the cookie holds the token. `GET /?token=` sets the cookie
//! and leads to the address without the token, which so stays out of histories and screenshots.
//!
//! Cookies belong to a host, whatever the port is. So the port is part of the cookie's name, and two programs on one
//! machine do not take each other's.

use crate::failure::Failure;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// What the page may load: what this program serves, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Headers of every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// Knows the token, and what the page may be called.
pub struct Guard {
    token: String,
    cookie: String,
    hosts: Vec<String>,
}

impl Guard {
    /// Draws a token for the page at this address.
    pub fn new(bound: SocketAddr, names: &[String]) -> Result<Self, Failure> {
        let mut drawn = [0; 32];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random
            .fill(&mut drawn)
            .map_err(|_| Failure::File("the system gives no random numbers".to_owned()))?;
        let mut token = String::new();
        for byte in drawn {
            // Writing into a string does not fail.
            let _ = write!(token, "{byte:02x}");
        }
        let port = bound.port();
        let mut hosts = vec![bound.to_string()];
        for own in ["127.0.0.1", "localhost", "[::1]"] {
            hosts.push(format!("{own}:{port}"));
        }
        hosts.extend(names.iter().map(|name| name.to_ascii_lowercase()));
        Ok(Self {
            token,
            cookie: format!("state_cache_{port}"),
            hosts,
        })
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    fn is_token(&self, given: &str) -> bool {
        self.token.as_bytes().ct_eq(given.as_bytes()).into()
    }

    fn is_host(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(header::HOST).iter();
        let host = given.next().and_then(|host| host.to_str().ok());
        let known = |host: &str| {
            let host = host.to_ascii_lowercase();
            self.hosts.contains(&host)
        };
        host.is_some_and(known) && given.next().is_none()
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .any(|(name, value)| name == self.cookie && self.is_token(value))
    }

    /// What to answer at once; none: the request may pass.
    fn refuse(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
        if !self.is_host(headers) {
            let text = "this page is not called by that name: see --host-name\n";
            return Some((StatusCode::MISDIRECTED_REQUEST, text).into_response());
        }
        if method != Method::GET && method != Method::HEAD {
            let allowed = [(header::ALLOW, "GET, HEAD")];
            return Some(
                (
                    StatusCode::METHOD_NOT_ALLOWED,
                    allowed,
                    "nothing here changes anything\n",
                )
                    .into_response(),
            );
        }
        let mut pairs = uri.query().unwrap_or_default().split('&');
        let given = pairs.find_map(|pair| pair.strip_prefix("token="));
        if let Some(given) = given.filter(|_| uri.path() == "/")
            && self.is_token(given)
        {
            let cookie = format!(
                "{}={}; Path=/; HttpOnly; SameSite=Strict",
                self.cookie, self.token
            );
            let headers = [
                (header::LOCATION, "/".to_owned()),
                (header::SET_COOKIE, cookie),
            ];
            return Some((StatusCode::SEE_OTHER, headers).into_response());
        }
        if self.has_cookie(headers) {
            return None;
        }
        let text = "open the whole address that state-cache serve has printed, with its token\n";
        Some((StatusCode::UNAUTHORIZED, text).into_response())
    }
}

/// Lets through what the guard does, and gives every answer its headers.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let refused = guard.refuse(request.method(), request.uri(), request.headers());
    let mut response = match refused {
        Some(response) => response,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
