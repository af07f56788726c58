//! Structs that begin with `size`, so that either side may be older than the other.
//!
//! The caller sets `size` to its own `sizeof`. The library touches no byte beyond it, and takes a member that an older
//! caller does not have as zero. The rule that makes this work: members are only ever added at the end, and a struct
//! that is read has no padding there.

use crate::guard::misuse;
use vmesskit::Error;

/// A C struct whose first member is `uint32_t size`.
///
/// # Safety
/// `repr(C)`, `size: u32` first, no destructor, and any prefix of a valid value that ends on `align_of` and is filled
/// up with zeroes is a valid value.
pub(crate) unsafe trait Sized32: Copy {
    /// The name in C.
    const NAME: &'static str;
    /// The least size that makes sense: the end of the last member that no caller can do without.
    const MIN: usize;
}

/// Reads a struct that may be shorter or longer than ours.
///
/// # Errors
/// `Misuse` for NULL, and for a size that no version of the struct has had.
///
/// # Safety
/// `from` is NULL or points to at least as many readable bytes as its first `uint32_t` says.
pub(crate) unsafe fn read<T: Sized32>(from: *const T) -> Result<T, Error> {
    // SAFETY: the caller's promise, handed on.
    let size = unsafe { claimed_size(from) }?;
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `from` has `size` readable bytes, `value` has room for a whole `T`, the smaller of both is copied, and
    // the two cannot overlap. The result is valid by the promise of `Sized32`.
    unsafe {
        let count = size.min(size_of::<T>());
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), count);
        Ok(value.assume_init())
    }
}

/// Writes as much of `value` as the caller's struct has room for, and sets its `size` to what was written.
///
/// # Errors
/// As [`read`]; nothing is written then.
///
/// # Safety
/// `to` is NULL or points to at least as many writable bytes as its first `uint32_t` says.
pub(crate) unsafe fn write<T: Sized32>(to: *mut T, value: &T) -> Result<(), Error> {
    // SAFETY: the caller's promise, handed on.
    let size = unsafe { claimed_size(to) }?;
    let count = size.min(size_of::<T>());
    // SAFETY: `to` has `size` writable bytes and is no part of `value`; the first four hold the size, and `count` fits
    // a u32 since `size` did.
    unsafe {
        std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast::<u8>(), to.cast::<u8>(), count);
        to.cast::<u32>().write(count as u32);
    }
    Ok(())
}

/// Checks a struct without reading more of it than its size.
///
/// # Errors
/// As [`read`].
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn check<T: Sized32>(from: *const T) -> Result<(), Error> {
    // SAFETY: the caller's promise, handed on.
    unsafe { claimed_size(from) }.map(drop)
}

/// The size that a caller's struct claims, if it is one that a version of `T` may have.
///
/// # Safety
/// As [`read`].
unsafe fn claimed_size<T: Sized32>(from: *const T) -> Result<usize, Error> {
    if from.is_null() {
        return Err(misuse(format!("{} is NULL", T::NAME)));
    }
    if !from.is_aligned() {
        return Err(misuse(format!("{} is not aligned", T::NAME)));
    }
    // SAFETY: not NULL, aligned, and at least the size itself is readable.
    let size = unsafe { from.cast::<u32>().read() } as usize;
    if size < T::MIN || !size.is_multiple_of(align_of::<T>()) {
        return Err(misuse(format!("{}.size is {size}, set it to sizeof({})", T::NAME, T::NAME)));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Now {
        size: u32,
        first: u32,
        second: u64,
        third: u64,
    }

    // SAFETY: integers in C layout, without padding.
    unsafe impl Sized32 for Now {
        const NAME: &'static str = "now";
        const MIN: usize = 8;
    }

    /// A caller's buffer: a struct of some size, and bytes behind it that nobody may touch.
    #[repr(C, align(8))]
    struct Room([u8; 64]);

    fn room(size: u32) -> Room {
        let mut bytes = [0xee; 64];
        bytes[..4].copy_from_slice(&size.to_ne_bytes());
        Room(bytes)
    }

    #[test]
    fn a_shorter_struct_reads_as_zero_behind_its_end() {
        let from = room(16);
        // SAFETY: the room is larger than the size it claims.
        let value = unsafe { read(from.0.as_ptr().cast::<Now>()) }.unwrap();
        assert_eq!(value, Now { size: 16, first: 0xeeee_eeee, second: 0xeeee_eeee_eeee_eeee, third: 0 });
    }

    #[test]
    fn a_longer_struct_is_read_as_far_as_we_know_it() {
        let from = room(64);
        // SAFETY: the room is as large as the size it claims.
        let value = unsafe { read(from.0.as_ptr().cast::<Now>()) }.unwrap();
        assert_eq!(value.third, 0xeeee_eeee_eeee_eeee);
    }

    #[test]
    fn no_byte_behind_a_shorter_struct_is_written() {
        let value = Now { size: 24, first: 1, second: 2, third: 3 };
        for size in [8, 16, 24, 32, 64] {
            let mut to = room(size);
            // SAFETY: the room is at least as large as the size it claims.
            unsafe { write(to.0.as_mut_ptr().cast::<Now>(), &value) }.unwrap();
            let written = (size as usize).min(24);
            assert_eq!(to.0[..4], (written as u32).to_ne_bytes());
            assert_eq!(to.0[4..8], 1u32.to_ne_bytes());
            assert!(to.0[written..].iter().all(|byte| *byte == 0xee), "size {size}");
        }
    }

    #[test]
    fn sizes_that_no_version_has_had_are_refused() {
        for size in [0, 4, 7, 9, 12, u32::MAX] {
            let mut to = room(size);
            let before = to.0;
            let at = to.0.as_mut_ptr().cast::<Now>();
            // SAFETY: a size is refused before a byte beyond it is touched.
            let (read, written) =
                unsafe { (read(at), write(at, &Now { size: 24, first: 1, second: 2, third: 3 })) };
            assert!(read.is_err() && written.is_err(), "size {size}");
            assert_eq!(to.0, before);
        }
    }
}
