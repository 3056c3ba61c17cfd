//! The channels of clients in other processes: the thread that finds their requests, and what is left
//! behind by clients that died.

use crate::config::DaemonError;
use crate::server::Node;
use parking_lot::Mutex;
use pool::cxl::region::Region;
use pool::cxl::ring::{Call, Server};
use pool::cxl::slots::Slots;
use pool::proto::cluster::ClientName;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The rings of a rack, served.
pub(crate) struct Rings {
    region: Arc<Region>,
    /// `None` after the end.
    server: Mutex<Option<Arc<Server>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Rings {
    /// Serves the rings of the node's region, on a thread of their own.
    pub fn start(node: &Arc<Node>) -> Result<Self, DaemonError> {
        let region = Arc::clone(node.ctx.frames.region());
        let server = Arc::new(Server::new(Arc::clone(&region)).map_err(DaemonError::Rings)?);
        let (polled, node) = (Arc::clone(&server), Arc::clone(node));
        let poll = move || polled.run(|call| serve(&node, call));
        let thread = std::thread::Builder::new().name("pool-rings".into()).spawn(poll);
        let thread = Mutex::new(Some(thread.map_err(DaemonError::Thread)?));
        Ok(Self { region, server: Mutex::new(Some(server)), thread })
    }

    /// Frees what clients that died have left: access slots and channels. Returns how many clients in
    /// other processes live.
    pub fn sweep(&self) -> usize {
        Slots::new(&self.region).release_dead();
        self.server.lock().as_ref().map_or(0, |server| server.sweep())
    }

    /// Serves no more requests. What was taken is still answered.
    pub fn stop(&self) {
        self.server.lock().iter().for_each(|server| server.stop());
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("the thread that serves the rings has panicked");
        }
    }

    /// Tells clients that nobody serves them any more; what is answered from now on is lost.
    pub fn close(&self) {
        drop(self.server.lock().take());
    }
}

fn serve(node: &Arc<Node>, call: Call) {
    let Call { client, request, reply } = call;
    let answer = Box::new(move |answer| reply.answer(&answer));
    node.serve_client(ClientName::Mapped(client), request, answer);
}
