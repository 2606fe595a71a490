/* The forms of x86-64: AVX2, and AVX-512 with and without VBMI2; part of kernels.c. Each function names the
   instructions that it uses, and has_...() asks the processor for them. */

/* ---- AVX2: a table says for each byte of the mask where its values go ---- */

#define TARGET_AVX2 __attribute__((target("avx2,fma,f16c,popcnt,bmi,bmi2")))
#define AVX2 static inline __attribute__((always_inline, target("avx2,fma,f16c,popcnt,bmi,bmi2")))

/* For lane i of a byte of the mask: which of its kept values, or 0x80 where none is. */
static uint8_t PLACES_8[256][8], PLACES_16[256][16];

static void fill_places(void) {
    for (int byte = 0; byte < 256; byte++)
        for (int lane = 0, next = 0; lane < 8; lane++) {
            int kept = byte >> lane & 1;
            PLACES_8[byte][lane] = kept ? next : 0x80;
            PLACES_16[byte][2 * lane] = kept ? 2 * next : 0x80;
            PLACES_16[byte][2 * lane + 1] = kept ? 2 * next + 1 : 0x80;
            next += kept;
        }
}

typedef struct { __m256 low, high; } Pair;

AVX2 Pair zero_avx2(void) { return (Pair){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
AVX2 Pair load_avx2(const float *from) { return (Pair){_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
AVX2 void store_avx2(float *to, Pair all) {
    _mm256_storeu_ps(to, all.low);
    _mm256_storeu_ps(to + 8, all.high);
}
AVX2 Pair fma_avx2(Pair a, Pair b, Pair c) {
    return (Pair){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
AVX2 Pair add_avx2(Pair a, Pair b) { return (Pair){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
AVX2 Pair splat_avx2(float value) { return (Pair){_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
AVX2 float sum_eight(__m256 eight) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
AVX2 float sum_avx2(Pair all) { return sum_eight(_mm256_add_ps(all.low, all.high)); }
AVX2 __m256 widened_avx2(int type, __m128i raw) {
    switch (type) {
    case BFLOAT16: return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
    case FLOAT16: return _mm256_cvtph_ps(raw);
    default: return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(raw));
    }
}
AVX2 __m256 expanded_avx2(int type, unsigned byte, const char *kept) {
    if (type == FLOAT32) {
        __m256i places = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)PLACES_8[byte]));
        __m256 moved = _mm256_permutevar8x32_ps(_mm256_loadu_ps((const float *)kept), places);
        return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_srai_epi32(places, 31)), moved);
    }
    if (type == INT8) {
        __m128i places = _mm_loadl_epi64((const __m128i *)PLACES_8[byte]);
        return widened_avx2(type, _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)kept), places));
    }
    __m128i places = _mm_loadu_si128((const __m128i *)PLACES_16[byte]);
    return widened_avx2(type, _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)kept), places));
}
AVX2 void packed_avx2(int type, uint64_t bits, const void *kept, Pair w[4]) {
    const char *from = kept;
    for (int i = 0; i < 4; i++) {
        unsigned low = bits >> 16 * i & 255, high = bits >> (16 * i + 8) & 255;
        w[i].low = expanded_avx2(type, low, from);
        from += __builtin_popcount(low) * SIZES[type];
        w[i].high = expanded_avx2(type, high, from);
        from += __builtin_popcount(high) * SIZES[type];
    }
}
AVX2 __m256 eight_avx2(int type, const char *row) {
    if (type == FLOAT32) return _mm256_loadu_ps((const float *)row);
    if (type == INT8) return widened_avx2(type, _mm_loadl_epi64((const __m128i *)row));
    return widened_avx2(type, _mm_loadu_si128((const __m128i *)row));
}
AVX2 void dense_avx2(int type, const void *row, Pair w[4]) {
    for (int i = 0; i < 4; i++) {
        const char *from = (const char *)row + 16 * i * SIZES[type];
        w[i] = (Pair){eight_avx2(type, from), eight_avx2(type, from + 8 * SIZES[type])};
    }
}

#define FORM avx2
#define STREAMS 2 /* rows at once for one token */
#define VECTOR Pair
#define TARGET TARGET_AVX2
#include "kernels_form.h"

/* ---- AVX-512: expand instructions of 32-bit lanes; of 16 and 8 bits with VBMI2 ---- */

#define FLAGS_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,popcnt,bmi,bmi2"
#define FLAGS_VBMI2 FLAGS_AVX512 ",avx512vbmi,avx512vbmi2"
#define AVX512 static inline __attribute__((always_inline, target(FLAGS_AVX512)))
#define VBMI2 static inline __attribute__((always_inline, target(FLAGS_VBMI2)))

AVX512 __m512 zero_avx512(void) { return _mm512_setzero_ps(); }
AVX512 __m512 load_avx512(const float *from) { return _mm512_loadu_ps(from); }
AVX512 void store_avx512(float *to, __m512 all) { _mm512_storeu_ps(to, all); }
AVX512 __m512 fma_avx512(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
AVX512 __m512 add_avx512(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
AVX512 __m512 splat_avx512(float value) { return _mm512_set1_ps(value); }
AVX512 float sum_avx512(__m512 all) {
    return sum_eight(_mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1)));
}
AVX512 __m512 sixteen_avx512(int type, const char *from) {
    switch (type) {
    case FLOAT32: return _mm512_loadu_ps((const float *)from);
    case BFLOAT16: {
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }
    case FLOAT16: return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
    default: return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
    }
}
AVX512 void dense_avx512(int type, const void *row, __m512 w[4]) {
    for (int i = 0; i < 4; i++) w[i] = sixteen_avx512(type, (const char *)row + 16 * i * SIZES[type]);
}
AVX512 void packed_avx512(int type, uint64_t bits, const void *kept, __m512 w[4]) {
    const char *from = kept;
    for (int i = 0; i < 4; i++) {
        unsigned sixteen = bits >> 16 * i & 0xffff;
        w[i] = _mm512_maskz_expand_ps((__mmask16)sixteen, sixteen_avx512(type, from));
        from += __builtin_popcount(sixteen) * SIZES[type];
    }
}

#define FORM avx512
#define STREAMS 4 /* rows at once for one token */
#define VECTOR __m512
#define TARGET __attribute__((target(FLAGS_AVX512)))
#include "kernels_form.h"

#define zero_vbmi2 zero_avx512
#define load_vbmi2 load_avx512
#define store_vbmi2 store_avx512
#define fma_vbmi2 fma_avx512
#define add_vbmi2 add_avx512
#define splat_vbmi2 splat_avx512
#define sum_vbmi2 sum_avx512
#define dense_vbmi2 dense_avx512

/* 16 of 32 bfloat16 into the upper halves of 32-bit lanes. */
VBMI2 __m512 half_vbmi2(__m512i words, int first) {
    const __m512i low = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0,
                                         3, 0, 2, 0, 1, 0, 0, 0);
    __m512i places = first ? _mm512_add_epi16(low, _mm512_set1_epi16(16)) : low;
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, places, words));
}
/* 16 of 64 bytes, each 128 more than its number, as the lowest bits of 2**23, from which the sum is taken again. */
VBMI2 __m512 quarter_vbmi2(__m512i bytes, int which) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i places = _mm512_add_epi32(lanes, _mm512_set1_epi32(16 * which));
    __m512i raised = _mm512_mask_permutexvar_epi8(_mm512_set1_epi32(0x4b000000), 0x1111111111111111, places, bytes);
    return _mm512_sub_ps(_mm512_castsi512_ps(raised), _mm512_set1_ps(0x1p23f + 128));
}
VBMI2 void packed_vbmi2(int type, uint64_t bits, const void *kept, __m512 w[4]) {
    const char *from = kept;
    if (type == FLOAT32) {
        packed_avx512(type, bits, kept, w);
        return;
    }
    if (type == INT8) {
        __m512i bytes = _mm512_maskz_expand_epi8(bits, _mm512_loadu_si512(from));
        for (int i = 0; i < 4; i++) w[i] = quarter_vbmi2(_mm512_xor_si512(bytes, _mm512_set1_epi8(-128)), i);
        return;
    }
    for (int i = 0; i < 2; i++) {
        uint32_t half = (uint32_t)(bits >> 32 * i);
        __m512i words = _mm512_maskz_expand_epi16(half, _mm512_loadu_si512(from));
        from += 2 * __builtin_popcount(half);
        if (type == BFLOAT16) {
            w[2 * i] = half_vbmi2(words, 0);
            w[2 * i + 1] = half_vbmi2(words, 16);
        } else {
            w[2 * i] = _mm512_cvtph_ps(_mm512_castsi512_si256(words));
            w[2 * i + 1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(words, 1));
        }
    }
}

#define FORM vbmi2
#define STREAMS 4 /* rows at once for one token */
#define VECTOR __m512
#define TARGET __attribute__((target(FLAGS_VBMI2)))
#include "kernels_form.h"

static int has_avx2(void) {
    unsigned a, b, c = 0, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")
        && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static int has_vbmi2(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
}
