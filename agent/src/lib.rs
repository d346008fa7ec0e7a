//! The node agent of Catamaran.
//!
//! Every second it reads what the containers of its node use, streams it to every replica of the operator, and holds
//! pods that have a quota annotation to it. It watches the pods of its own node and writes nothing to the API server.
//!
//! What is computed is apart from what touches files:
//!
//! - [`files`]: the texts of the kernel's files, read into numbers
//! - [`layout`]: how runtimes and kubelets name cgroups
//! - [`knobs`]: from a quota to what each file should say
//! - [`working_set`]: when the costly part of the working set is read
//! - [`pods`]: what the agent keeps of a pod
//!
//! and the edge around it:
//!
//! - [`cgroup`]: folders and files of the cgroup tree, never by a path from outside
//! - [`find`]: the cgroups of a pod and its containers
//! - [`devices`]: the disks of the node
//! - [`sample`]: one reading of everything
//! - [`hold`], [`enforce`]: one container, and all of them, held to their quota
//! - [`node`]: what the node is
//! - [`watch`], [`http`], [`metrics`], [`settings`], [`run`]: the process

pub mod cgroup;
pub mod devices;
pub mod enforce;
pub mod files;
pub mod find;
pub mod hold;
pub mod http;
pub mod knobs;
pub mod layout;
pub mod metrics;
pub mod node;
pub mod pods;
pub mod run;
pub mod sample;
pub mod settings;
pub mod stopping;
pub mod watch;
pub mod working_set;
