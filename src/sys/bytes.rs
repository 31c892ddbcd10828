//! What processors can do with memory beyond plain code, on any one that this is compiled for: SSE2 is part of x86_64.

/// Has `what` brought from memory while other work goes on; it need not be waited for.
#[inline(always)]
pub(crate) fn bring<T>(what: &T) {
    /// Of every x86_64.
    #[cfg(target_arch = "x86_64")]
    const LINE_BYTES: usize = 64;
    #[cfg(target_arch = "x86_64")]
    for line in 0..size_of::<T>().div_ceil(LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let from = std::ptr::from_ref(what).cast::<i8>();
        // SAFETY: it is only a hint, which faults for no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line * LINE_BYTES)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(what);
}

/// Which of the bytes are one of `wanted`, the first one's bit lowest.
#[inline(always)]
pub(crate) fn which<const N: usize>(block: &[u8; 16], wanted: [u8; N]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128,
            _mm_set1_epi8, _mm_setzero_si128,
        };
        // SAFETY: every x86_64 has SSE2, and `block` is sixteen bytes, which need not be aligned.
        unsafe {
            let bytes = _mm_loadu_si128(block.as_ptr().cast::<__m128i>());
            let found = wanted.iter().fold(_mm_setzero_si128(), |found, byte| {
                let same = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed()));
                _mm_or_si128(found, same)
            });
            _mm_movemask_epi8(found).cast_unsigned()
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    bits(block, |byte| wanted.contains(&byte))
}

/// Which of the bytes are no digits.
#[inline(always)]
pub(crate) fn no_digits(block: &[u8; 16]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8,
            _mm_set1_epi8, _mm_sub_epi8,
        };
        // SAFETY: as above.
        unsafe {
            let bytes = _mm_loadu_si128(block.as_ptr().cast::<__m128i>());
            let values = _mm_sub_epi8(bytes, _mm_set1_epi8(b'0'.cast_signed()));
            let digits = _mm_cmpeq_epi8(values, _mm_min_epu8(values, _mm_set1_epi8(9)));
            _mm_movemask_epi8(digits).cast_unsigned() ^ 0xffff
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    bits(block, |byte| !byte.is_ascii_digit())
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn bits(block: &[u8; 16], wanted: impl Fn(u8) -> bool) -> u32 {
    let bit = |(n, byte): (usize, &u8)| u32::from(wanted(*byte)) << n;
    block.iter().enumerate().map(bit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_loop_would_find() {
        for first in 0..=255u8 {
            let mut block = [0u8; 16];
            for (n, byte) in (0u8..).zip(&mut block) {
                *byte = first.wrapping_mul(n.wrapping_mul(37) | 1).wrapping_add(n);
            }
            let wanted = [b'"', b'\\', b'7'];
            assert_eq!(which(&block, wanted), bits(&block, |b| wanted.contains(&b)));
            assert_eq!(no_digits(&block), bits(&block, |b| !b.is_ascii_digit()));
        }
    }
}
