//! The users of a VMess inbound. No version has such an inbound yet: every function here is `VMK_UNSUPPORTED`.

use crate::codes::vmk_result;
use crate::error::vmk_error;
use crate::guard::{give, guard, guard_or, misuse, required};
use crate::sized::{self, Sized32};
use crate::text;
use crate::tunnel::vmk_tunnel;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use vmesskit::UserInfo;

/// The users at one moment: opaque, freed with `vmk_users_free`.
pub struct vmk_users {
    users: Vec<(UserInfo, CString)>,
}

/// One user of a VMess inbound. The text is borrowed from the list.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_user {
    /// `sizeof(vmk_user)`.
    pub size: u32,
    /// The policy level.
    pub level: u32,
    /// Payload bytes up.
    pub uplink_bytes: u64,
    /// Payload bytes down.
    pub downlink_bytes: u64,
    /// The e-mail.
    pub email: *const c_char,
}

// SAFETY: integers and a raw pointer in C layout.
unsafe impl Sized32 for vmk_user {
    const NAME: &'static str = "vmk_user";
    const MIN: usize = 8;
}

/// Lists the users with their counters. Not built yet: `VMK_UNSUPPORTED`.
///
/// out: receives the list, to be freed with `vmk_users_free`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_users(
    tunnel: Option<&vmk_tunnel>,
    out: Option<&mut MaybeUninit<*mut vmk_users>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let out = required(out, "out")?;
        let users = required(tunnel, "tunnel")?.tunnel().users()?;
        let with_text = |user: UserInfo| {
            let email = text::copy(&user.email);
            (user, email)
        };
        give(out, vmk_users { users: users.into_iter().map(with_text).collect() });
        Ok(())
    })
}

/// Returns how many users there are; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_users_count(users: Option<&vmk_users>) -> usize {
    guard_or(0, || users.map_or(0, |list| list.users.len()))
}

/// Reads one user; `VMK_MISUSE` behind the end.
///
/// out: its `size` is set by the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_users_get(
    users: Option<&vmk_users>,
    index: usize,
    out: *mut vmk_user,
) -> vmk_result {
    guard(None, || {
        let list = &required(users, "users")?.users;
        let (user, email) = list.get(index).ok_or_else(|| misuse("index is behind the end"))?;
        let value = vmk_user {
            size: 0,
            level: user.level,
            uplink_bytes: user.uplink_bytes,
            downlink_bytes: user.downlink_bytes,
            email: email.as_ptr(),
        };
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        unsafe { sized::write(out, &value) }
    })
}

/// Frees a list and every text borrowed from it. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_users_free(users: Option<Box<vmk_users>>) {
    guard_or((), || drop(users));
}

/// Adds a user to a VMess inbound. Not built yet: `VMK_UNSUPPORTED`.
///
/// inbound: its tag. user: the user as in the config's `clients`, JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_add_user(
    tunnel: Option<&vmk_tunnel>,
    inbound: *const c_char,
    user: *const c_char,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        // SAFETY: NULL or texts, as the header asks for.
        let (inbound, user) = unsafe { (text::read(inbound, "inbound")?, text::read(user, "user")?) };
        required(tunnel, "tunnel")?.tunnel().add_user(inbound, user)
    })
}

/// Removes a user of a VMess inbound. Not built yet: `VMK_UNSUPPORTED`.
///
/// inbound: its tag. email: the user's. removed: receives 1, or 0 if there is no such user; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_remove_user(
    tunnel: Option<&vmk_tunnel>,
    inbound: *const c_char,
    email: *const c_char,
    removed: Option<&mut MaybeUninit<u32>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        // SAFETY: NULL or texts, as the header asks for.
        let (inbound, email) = unsafe { (text::read(inbound, "inbound")?, text::read(email, "email")?) };
        let found = required(tunnel, "tunnel")?.tunnel().remove_user(inbound, email)?;
        if let Some(removed) = removed {
            removed.write(found.into());
        }
        Ok(())
    })
}
