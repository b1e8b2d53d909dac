//! The suite. Each module holds one subject, each test is named by the claim it proves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod behind;
mod changes;
mod crash;
mod databases;
mod decoys;
mod dump;
mod dump_modes;
mod expiry;
mod faults;
mod flush_many;
mod history;
mod identity;
mod interrupted;
mod memory;
mod messages;
mod model;
mod notify;
mod out_of_memory;
mod partitions;
mod partitions_elsewhere;
mod protections;
mod replication;
mod run_stress;
mod runs;
mod set_back;
mod snapshots;
mod standby;
mod stress;
mod subscriber;
mod unused;
mod upkeep;
mod verify;
mod versions;
mod worker_settings;
mod workers;
