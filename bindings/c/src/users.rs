//! The users of a VMess inbound, and the counters by name.

use crate::codes::vmk_result;
use crate::error::vmk_error;
use crate::guard::{give, guard, guard_or, misuse, required};
use crate::sized::{self, Sized32};
use crate::text;
use crate::tunnel::vmk_tunnel;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use vmesskit::{Counter, Error, ErrorKind, NewUser, UserInfo};

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
    /// Payload bytes that the user sent since the last reset, if the policy has the user counted.
    pub uplink_bytes: u64,
    /// Payload bytes that the user received since the last reset, if the policy has the user counted.
    pub downlink_bytes: u64,
    /// The e-mail; may be empty for a user of the config.
    pub email: *const c_char,
    /// How many alter ids.
    pub alter_id: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: integers and a raw pointer in C layout.
unsafe impl Sized32 for vmk_user {
    const NAME: &'static str = "vmk_user";
    const MIN: usize = 8;
}

/// A user for `vmk_tunnel_add_user`. Its texts are copied before the call returns; the id is a secret.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_new_user {
    /// `sizeof(vmk_new_user)`.
    pub size: u32,
    /// The policy level.
    pub level: u32,
    /// The id: a UUID, or another text of 1 to 30 bytes, which is mapped to one as Xray does it.
    pub id: *const c_char,
    /// The e-mail, by which the user is counted, routed and removed. Not empty, and the inbound's only one of it, without
    /// regard to case.
    pub email: *const c_char,
    /// How many alter ids, 0 to 65535; 0 for the AEAD header alone.
    pub alter_id: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: integers and raw pointers in C layout; a struct cut after `email` reads as one with alter id 0.
unsafe impl Sized32 for vmk_new_user {
    const NAME: &'static str = "vmk_new_user";
    const MIN: usize = 8 + 2 * size_of::<usize>();
}

const _: () = assert!(size_of::<vmk_new_user>() == 16 + 2 * size_of::<usize>(), "no padding");

/// Lists the users of a VMess inbound: those of the config and those that were added.
///
/// inbound: its tag. out: receives the list, to be freed with `vmk_users_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_users(
    tunnel: Option<&vmk_tunnel>,
    inbound: *const c_char,
    out: Option<&mut MaybeUninit<*mut vmk_users>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let out = required(out, "out")?;
        // SAFETY: NULL or a text, as the header asks for.
        let inbound = unsafe { text::read(inbound, "inbound")? };
        let users = required(tunnel, "tunnel")?.tunnel().users(inbound)?;
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
            alter_id: user.alter_id.into(),
            reserved: 0,
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

/// Adds a user to a VMess inbound, who may connect from then on. The user stays until removed, and until a reload gives the
/// inbound other clients. Takes some milliseconds where there are thousands of users. `VMK_CONFIG_INVALID` with the path
/// `id`, `alterId` or `email` if that is not valid, or another user's; `VMK_MISUSE` if no VMess inbound has the tag.
///
/// inbound: its tag. user: read during the call only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_add_user(
    tunnel: Option<&vmk_tunnel>,
    inbound: *const c_char,
    user: *const vmk_new_user,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        // SAFETY: NULL or a text, and NULL or a struct that begins with its size, as the header asks for.
        let (inbound, user) = unsafe { (text::read(inbound, "inbound")?, read(user)?) };
        required(tunnel, "tunnel")?.tunnel().add_user(inbound, &user)
    })
}

/// Reads a user that a host describes.
///
/// # Errors
/// `Misuse` for NULL, a wrong size, a NULL text; `ConfigInvalid` for an alter id that is none.
///
/// # Safety
/// `from` is NULL or as the struct's documentation says.
unsafe fn read(from: *const vmk_new_user) -> Result<NewUser, Error> {
    // SAFETY: the caller's promise, handed on.
    let raw = unsafe { sized::read(from) }?;
    // SAFETY: the same promise: two texts.
    let (id, email) = unsafe { (text::read(raw.id, "user.id")?, text::read(raw.email, "user.email")?) };
    let alter_id = u16::try_from(raw.alter_id).map_err(|_| {
        Error::new(ErrorKind::ConfigInvalid, "out of range")
            .with_path("alterId")
            .with_reason(format!("found {}; allowed: 0 to 65535", raw.alter_id))
    })?;
    Ok(NewUser { id: id.to_owned(), alter_id, level: raw.level, email: email.to_owned() })
}

/// Removes a user of a VMess inbound by e-mail, without regard to case. Connections that the user has open live on, and no
/// new one is served. `VMK_MISUSE` if the e-mail is empty, or no VMess inbound has the tag.
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

/// The counters by name at one moment: opaque, freed with `vmk_counters_free`.
pub struct vmk_counters {
    counters: Vec<(CString, u64)>,
}

/// One counter. The text is borrowed from the list.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_counter {
    /// `sizeof(vmk_counter)`.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Payload bytes since the last reset.
    pub value: u64,
    /// V2Ray's name: `user>>>EMAIL>>>traffic>>>uplink`, or `inbound` or `outbound` and a tag, or `downlink`.
    pub name: *const c_char,
}

// SAFETY: integers and a raw pointer in C layout.
unsafe impl Sized32 for vmk_counter {
    const NAME: &'static str = "vmk_counter";
    const MIN: usize = 16;
}

/// Lists the counters that the config's policy asks for: of users, inbounds and outbounds. Never blocks. A counter is there
/// from its first connection on; one that has stayed at 0 from one reset to the next, without a connection, is gone until
/// there is one again.
///
/// reset: not 0 to set them to 0 in the same step, without losing a byte. out: receives the list, to be freed with
/// `vmk_counters_free`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_counters(
    tunnel: Option<&vmk_tunnel>,
    reset: u32,
    out: Option<&mut MaybeUninit<*mut vmk_counters>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let out = required(out, "out")?;
        let counters = required(tunnel, "tunnel")?.tunnel().counters(reset != 0);
        let with_text = |counter: Counter| (text::copy(&counter.name), counter.value);
        give(out, vmk_counters { counters: counters.into_iter().map(with_text).collect() });
        Ok(())
    })
}

/// Returns how many counters there are; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_counters_count(counters: Option<&vmk_counters>) -> usize {
    guard_or(0, || counters.map_or(0, |list| list.counters.len()))
}

/// Reads one counter; `VMK_MISUSE` behind the end.
///
/// out: its `size` is set by the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_counters_get(
    counters: Option<&vmk_counters>,
    index: usize,
    out: *mut vmk_counter,
) -> vmk_result {
    guard(None, || {
        let list = &required(counters, "counters")?.counters;
        let (name, value) = list.get(index).ok_or_else(|| misuse("index is behind the end"))?;
        let value = vmk_counter { size: 0, reserved: 0, value: *value, name: name.as_ptr() };
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        unsafe { sized::write(out, &value) }
    })
}

/// Frees a list and every text borrowed from it. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_counters_free(counters: Option<Box<vmk_counters>>) {
    guard_or((), || drop(counters));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::{VMK_MISUSE, VMK_OK};
    use std::ffi::CStr;

    #[test]
    fn a_user_reaches_c_whole() {
        let info = UserInfo {
            email: "ann@example.com".into(),
            alter_id: 4,
            level: 1,
            uplink_bytes: 2,
            downlink_bytes: 3,
        };
        let list = vmk_users { users: vec![(info, c"ann@example.com".into())] };
        let mut out = MaybeUninit::<vmk_user>::zeroed();
        let size = size_of::<vmk_user>() as u32;
        // SAFETY: a zeroed struct of integers and pointers is valid; its size is set before it is handed over.
        let out = unsafe {
            out.as_mut_ptr().cast::<u32>().write(size);
            assert_eq!(vmk_users_get(Some(&list), 0, out.as_mut_ptr()), VMK_OK);
            assert_eq!(vmk_users_get(Some(&list), 1, out.as_mut_ptr()), VMK_MISUSE);
            out.assume_init()
        };
        // SAFETY: borrowed from `list`.
        assert_eq!(unsafe { CStr::from_ptr(out.email) }, c"ann@example.com");
        assert_eq!((out.size, out.level, out.alter_id, out.reserved), (size, 1, 4, 0));
        assert_eq!((out.uplink_bytes, out.downlink_bytes), (2, 3));
    }

    #[test]
    fn a_user_comes_from_c_whole() {
        let mut raw = vmk_new_user {
            size: size_of::<vmk_new_user>() as u32,
            level: 7,
            id: c"the id".as_ptr(),
            email: c"ann".as_ptr(),
            alter_id: 65_535,
            reserved: 0,
        };
        // SAFETY: a whole struct with two literals.
        let user = unsafe { read(&raw) }.unwrap();
        let expected = NewUser { id: "the id".into(), alter_id: 65_535, level: 7, email: "ann".into() };
        assert_eq!(user, expected);
        raw.alter_id += 1;
        // SAFETY: as above.
        let error = unsafe { read(&raw) }.unwrap_err();
        assert_eq!((error.kind, error.path.as_str()), (ErrorKind::ConfigInvalid, "alterId"));
        raw.size = vmk_new_user::MIN as u32;
        // SAFETY: as above; the rest is not looked at.
        assert_eq!(unsafe { read(&raw) }.unwrap().alter_id, 0, "an older caller has no alter ids");
        raw.email = std::ptr::null();
        // SAFETY: as above.
        assert_eq!(unsafe { read(&raw) }.unwrap_err().kind, ErrorKind::Misuse);
    }
}
