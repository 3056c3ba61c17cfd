//! A transport that fails on purpose, for tests of what stands above it.

use super::{Transport, TransportError};
use crate::proto::{NodeId, Reply, Request};
use std::sync::Arc;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out and answered.
    Deliver,
    /// It never arrives.
    DropRequest,
    /// It is carried out, but the answer is lost.
    DropReply,
}

/// Asks a rule for the fate of every request, then acts on it. A lost message is a
/// [`TransportError::TimedOut`] to the sender.
pub struct Faulty<F> {
    inner: Arc<dyn Transport>,
    rule: F,
}

impl<F: Fn(NodeId, &Request) -> Fate + Send + Sync> Faulty<F> {
    /// `inner`, with `rule` deciding about each request.
    pub fn new(inner: Arc<dyn Transport>, rule: F) -> Self {
        Self { inner, rule }
    }
}

impl<F: Fn(NodeId, &Request) -> Fate + Send + Sync> Transport for Faulty<F> {
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError> {
        match (self.rule)(to, &request) {
            Fate::Deliver => self.inner.call(to, request),
            Fate::DropRequest => Err(TransportError::TimedOut(to)),
            Fate::DropReply => {
                self.inner.call(to, request)?;
                Err(TransportError::TimedOut(to))
            }
        }
    }
}
