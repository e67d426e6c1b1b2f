//! Network interfaces by name and number, for addresses that are the same behind several of them.

use std::ffi::CString;
use std::io;

/// The number of the interface with this name or number.
///
/// # Errors
/// There is none such.
pub fn index(name: &str) -> io::Result<u32> {
    if let Ok(number) = name.parse::<u32>() {
        let mut found = [0_u8; libc::IF_NAMESIZE];
        // SAFETY: if_indextoname(3) writes at most IF_NAMESIZE bytes, which `found` has and which nobody else uses.
        let known = unsafe { libc::if_indextoname(number, found.as_mut_ptr().cast()) };
        return if known.is_null() { Err(io::Error::last_os_error()) } else { Ok(number) };
    }
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: if_nametoindex(3) reads a string that ends with its zero, and is alive for as long.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::index;

    #[test]
    fn interfaces_are_found_by_name_and_number() {
        let number = index("lo").unwrap();
        assert_eq!(index(&number.to_string()).unwrap(), number);
        assert!(index("no-such-one").is_err() && index("4294967295").is_err() && index("l\0o").is_err());
    }
}
