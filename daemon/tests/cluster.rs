//! Several daemons as a cluster, in one process, with a master that does no more than the messages say.

#[path = "cluster/alloc.rs"]
mod alloc;
#[path = "cluster/clients.rs"]
mod clients;
#[path = "cluster/free.rs"]
mod free;
#[path = "cluster/master.rs"]
mod master;
#[path = "cluster/membership.rs"]
mod membership;
#[path = "cluster/objects.rs"]
mod objects;
#[path = "cluster/racks.rs"]
mod racks;
