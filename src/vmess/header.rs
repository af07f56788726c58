//! The request header's plain form.

/// How a body is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// AES-128-GCM where the CPU is fast at it, else ChaCha20-Poly1305. Never on the wire.
    Auto,
    /// AES-128-GCM.
    Aes128Gcm,
    /// ChaCha20-Poly1305.
    Chacha20Poly1305,
    /// No protection, but framed.
    None,
    /// No protection and no framing.
    Zero,
    /// AES-128-CFB with a checksum: broken, kept for old peers.
    Aes128Cfb,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// A TCP stream to a target.
    Tcp,
    /// Datagrams to a target.
    Udp,
    /// A Mux.Cool carrier.
    Mux,
}

/// Option bits of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Options(pub u8);
