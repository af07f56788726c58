//! How a body is protected, and what `auto` means on this machine.

/// How a body is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// AES-128-GCM where the CPU is fast at it, else ChaCha20-Poly1305. Never on the wire.
    Auto,
    /// AES-128-GCM.
    Aes128Gcm,
    /// ChaCha20-Poly1305.
    Chacha20Poly1305,
    /// No protection; framed for datagrams, and for streams on request.
    None,
    /// No protection and no framing of streams. On the wire it is [`Security::None`] with other options.
    Zero,
    /// AES-128-CFB with a checksum: broken, kept for old peers.
    Aes128Cfb,
}

impl Security {
    /// Every value, in the order of its documentation.
    pub const ALL: [Self; 6] =
        [Self::Auto, Self::Aes128Gcm, Self::Chacha20Poly1305, Self::None, Self::Zero, Self::Aes128Cfb];

    /// The name in configs and share links.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Chacha20Poly1305 => "chacha20-poly1305",
            Self::None => "none",
            Self::Zero => "zero",
            Self::Aes128Cfb => "aes-128-cfb",
        }
    }

    /// Reads a name, in any case; `None` for an unknown one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|security| security.name().eq_ignore_ascii_case(name))
    }

    /// Settles [`Security::Auto`] for a machine with or without AES in hardware; anything else stays as it
    /// is.
    #[must_use]
    pub const fn resolve(self, hardware_aes: bool) -> Self {
        match (self, hardware_aes) {
            (Self::Auto, true) => Self::Aes128Gcm,
            (Self::Auto, false) => Self::Chacha20Poly1305,
            (settled, _) => settled,
        }
    }

    /// The code in a request header; `None` for what must never get there.
    pub const fn code(self) -> Option<u8> {
        match self {
            Self::Auto => None,
            Self::Aes128Cfb => Some(1),
            Self::Aes128Gcm => Some(3),
            Self::Chacha20Poly1305 => Some(4),
            Self::None | Self::Zero => Some(5),
        }
    }

    /// Reads the code in a request header. 0 is AES-128-CFB, as V2Ray reads it; 2 and 6 to 15 are nothing.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 | 1 => Some(Self::Aes128Cfb),
            3 => Some(Self::Aes128Gcm),
            4 => Some(Self::Chacha20Poly1305),
            5 => Some(Self::None),
            _ => None,
        }
    }
}

/// Whether this CPU has instructions for both halves of AES-GCM: AES rounds and carry-less multiplication.
pub fn hardware_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_settled_and_has_no_code() {
        assert_eq!(Security::Auto.resolve(true), Security::Aes128Gcm);
        assert_eq!(Security::Auto.resolve(false), Security::Chacha20Poly1305);
        assert_eq!(Security::Zero.resolve(true), Security::Zero);
        assert_eq!(Security::Auto.code(), None);
    }

    #[test]
    fn names_and_codes_are_read_back() {
        for security in Security::ALL {
            assert_eq!(Security::parse(&security.name().to_uppercase()), Some(security));
            let back = security.code().and_then(Security::from_code);
            match security {
                Security::Auto => assert_eq!(back, None),
                Security::Zero => assert_eq!(back, Some(Security::None)),
                other => assert_eq!(back, Some(other)),
            }
        }
        assert_eq!(Security::parse("legacy"), None);
        assert!([2, 6, 7, 15, 16, 255].iter().all(|&code| Security::from_code(code).is_none()));
    }
}
