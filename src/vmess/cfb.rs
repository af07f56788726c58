//! AES-128 in CFB mode with 128 bits of feedback: a stream cipher that takes any number of bytes at a time.
//!
//! It hides, and protects from nothing else: who flips a bit of the ciphertext flips that bit of the
//! plaintext.

use super::keys::BodyKeys;
use aes::Aes128Enc;
use cfb_mode::cipher::KeyIvInit;
use cfb_mode::{BufDecryptor, BufEncryptor};
use std::fmt;

/// The encrypting end of a stream.
pub(super) struct Encryptor(BufEncryptor<Aes128Enc>);

/// The decrypting end of a stream.
pub(super) struct Decryptor(BufDecryptor<Aes128Enc>);

impl Encryptor {
    pub(super) fn new(keys: &BodyKeys) -> Self {
        Self(BufEncryptor::new((&keys.key).into(), (&keys.iv).into()))
    }

    /// Encrypts the next bytes of the stream in place.
    pub(super) fn encrypt(&mut self, data: &mut [u8]) {
        self.0.encrypt(data);
    }
}

impl Decryptor {
    pub(super) fn new(keys: &BodyKeys) -> Self {
        Self(BufDecryptor::new((&keys.key).into(), (&keys.iv).into()))
    }

    /// Decrypts the next bytes of the stream in place.
    pub(super) fn decrypt(&mut self, data: &mut [u8]) {
        self.0.decrypt(data);
    }
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encryptor(..)")
    }
}

impl fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decryptor(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first blocks of the mode's example in NIST SP 800-38A, F.3.13.
    #[test]
    fn the_standards_example_comes_out_at_every_cut() {
        let keys = BodyKeys {
            key: 0x2B7E_1516_28AE_D2A6_ABF7_1588_09CF_4F3C_u128.to_be_bytes(),
            iv: 0x0001_0203_0405_0607_0809_0A0B_0C0D_0E0F_u128.to_be_bytes(),
        };
        let plain =
            [0x6BC1_BEE2_2E40_9F96_E93D_7E11_7393_172A_u128, 0xAE2D_8A57_1E03_AC9C_9EB7_6FAC_45AF_8E51];
        let known =
            [0x3B3F_D92E_B72D_AD20_3334_49F8_E83C_FB4A_u128, 0xC8A6_4537_A0B3_A93F_CDE3_CDAD_9F1C_E58B];
        let bytes = |blocks: [u128; 2]| blocks.map(u128::to_be_bytes).concat();
        for step in 1..=32 {
            let (mut ahead, mut back) = (Encryptor::new(&keys), Decryptor::new(&keys));
            let mut data = bytes(plain);
            data.chunks_mut(step).for_each(|piece| ahead.encrypt(piece));
            assert_eq!(data, bytes(known), "pieces of {step}");
            data.chunks_mut(step).for_each(|piece| back.decrypt(piece));
            assert_eq!(data, bytes(plain), "pieces of {step}");
        }
    }
}
