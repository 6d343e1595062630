//! What an error leaves behind besides its response: a count of the limit it hit, and a line of the log.

use super::{Error, Worker};
use crate::{
    error_chain::chain,
    forward::{self, connect::ConnectError},
    metrics::LimitHit,
    problem::{Code, ErrorOrigin, Row},
    token,
};
use http::HeaderValue;

impl Worker {
    /// Counts the limits that only an error shows, and logs what the response does not say. The
    /// access line has the code of every error already.
    pub(super) fn report(&self, error: &Error, request_id: &HeaderValue) {
        let limit = match error {
            Error::Rejected(Code::HeadersTooLarge) => Some(LimitHit::Headers),
            Error::Token(token::Error::TooManyWaiters) => Some(LimitHit::Waiters),
            Error::Forward(forward::Error::Connect(ConnectError::Timeout)) => {
                Some(LimitHit::ConnectTimeout)
            }
            Error::Forward(forward::Error::Timeout) => Some(LimitHit::ResponseHeaderTimeout),
            _ => None,
        };
        if let Some(limit) = limit {
            self.metrics.limit(limit);
        }
        let request_id = request_id.to_str().unwrap_or_default();
        let Row { code, origin, .. } = error.code().row();
        if *origin == ErrorOrigin::Upstream {
            tracing::warn!(request_id, code, error = %chain(error), "request failed");
        } else {
            tracing::debug!(request_id, code, error = %chain(error), "request rejected");
        }
    }
}
