//! Several real nodes over a real Redis, and what may happen to them.
//!
//! | theme | what |
//! | --- | --- |
//! | `reach` | every node reaches every connection: pushes, groups, listings, repeats |
//! | `death` | kill -9 and SIGSTOP: who is dead, who is not, and whose `$disconnect` is made by whom |
//! | `links` | links between nodes cut and frozen |
//! | `registry` | Redis cut off, paused, killed, emptied |
//! | `shapes` | Redis watched by Sentinel, and Redis Cluster: a failover, a slot that moves |
//! | `leaving` | drains, rolling restarts, shedding |
//! | `faults` | all of it in sequence under load, every push and its answer counted |
//! | `abuse` | wrong secrets, strangers, wrong and foreign Redis |
//!
//! `harness` is the cluster, `load` what goes on in it meanwhile. Leases are of one second here, so that a death is noticed in two.

mod abuse;
mod death;
mod faults;
mod harness;
mod leaving;
mod links;
mod load;
#[path = "../../support/net.rs"]
mod net;
mod reach;
use crate::support::redis;
mod registry;
mod shapes;
