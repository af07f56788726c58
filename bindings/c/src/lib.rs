//! The C interface of VMessKit: a translation table over the crate `vmesskit`, with no logic of its own.
//!
//! What a C program may rely on is written in `include/vmesskit.h`, which is generated from this crate's doc comments
//! (`scripts/gen-bindings`; the test `header` compares). Conventions of the Rust side:
//!
//! - A pointer that may be NULL is an `Option<&T>`, one that is given away an `Option<Box<T>>`, an out-parameter an
//!   `Option<&mut MaybeUninit<T>>`: each is one C pointer, checked by its type. `unsafe` remains for C strings, arrays,
//!   structs that begin with `size`, file descriptors and callbacks.
//! - Every function runs inside [`guard`]: a panic becomes `VMK_INTERNAL` or the function's neutral answer.

#![allow(non_camel_case_types, reason = "the names are the C names")]
#![allow(clippy::missing_safety_doc, reason = "what a caller must keep to is in the header, for C programs")]

pub mod codes;
pub mod config;
pub mod error;
pub mod event;
mod guard;
pub mod log;
pub mod network;
pub mod options;
pub mod platform;
mod sized;
pub mod stats;
pub mod status;
pub mod text;
pub mod tun;
pub mod tunnel;
pub mod users;
