/* The forms of x86-64: AVX2, and AVX-512 with and without VBMI2; part of kernels.c. Each function names the
   instructions that it uses, and has_...() asks the processor for them. */

/* ---- AVX2: a table says for each byte of the mask where its values go ---- */

#define TARGET_AVX2 __attribute__((target("avx2,fma,f16c,popcnt,bmi,bmi2")))
#define AVX2 static inline __attribute__((always_inline, target("avx2,fma,f16c,popcnt,bmi,bmi2")))

/* For lane i of a byte of the mask: which of its kept values, or a number with the highest bit where none is. */
static uint8_t PLACES_8[256][8], PLACES_16[256][16];
static uint32_t PLACES_32[256][8];

static void fill_places(void) {
    for (int byte = 0; byte < 256; byte++)
        for (int lane = 0, next = 0; lane < 8; lane++) {
            int kept = byte >> lane & 1;
            PLACES_8[byte][lane] = kept ? next : 0x80;
            PLACES_16[byte][2 * lane] = kept ? 2 * next : 0x80;
            PLACES_16[byte][2 * lane + 1] = kept ? 2 * next + 1 : 0x80;
            PLACES_32[byte][lane] = kept ? (uint32_t)next : 0x80000000;
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
/* How many values stand before byte `which` of a word of the mask; none waits for another. */
AVX2 int before_avx2(uint64_t bits, int which) { return which ? __builtin_popcountll(bits << (64 - 8 * which)) : 0; }
AVX2 __m256 expanded_avx2(int type, unsigned byte, const char *kept) {
    if (type == FLOAT32) {
        __m256i places = _mm256_loadu_si256((const __m256i *)PLACES_32[byte]);
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
AVX2 __m256i both_avx2(const void *low, const void *high) {
    return _mm256_loadu2_m128i((const __m128i *)high, (const __m128i *)low);
}
/* Columns 16 * which to 16 * which + 15 of 16 bits. */
AVX2 __m256i words_avx2(uint64_t bits, const char *kept, int which) {
    unsigned low = bits >> 16 * which & 255, high = bits >> (16 * which + 8) & 255;
    __m256i values = both_avx2(kept + 2 * before_avx2(bits, 2 * which), kept + 2 * before_avx2(bits, 2 * which + 1));
    return _mm256_shuffle_epi8(values, both_avx2(PLACES_16[low], PLACES_16[high]));
}
AVX2 __m256 even_avx2(__m256i words) { return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)); }
AVX2 __m256 odd_avx2(__m256i words) {
    return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32((int)0xffff0000)));
}
AVX2 void paired_avx2(const __m256i words[4], Pair w[4]) {
    for (int i = 0; i < 4; i += 2) {
        w[i] = (Pair){even_avx2(words[i]), even_avx2(words[i + 1])};
        w[i + 1] = (Pair){odd_avx2(words[i]), odd_avx2(words[i + 1])};
    }
}
AVX2 void packed_avx2(int type, uint64_t bits, const void *kept, Pair w[4]) {
    const char *from = kept;
    if (type == BFLOAT16) {
        __m256i words[4];
        for (int i = 0; i < 4; i++) words[i] = words_avx2(bits, from, i);
        paired_avx2(words, w);
        return;
    }
    for (int i = 0; i < 4; i++) {
        unsigned low = bits >> 16 * i & 255, high = bits >> (16 * i + 8) & 255;
        w[i].low = expanded_avx2(type, low, from + before_avx2(bits, 2 * i) * SIZES[type]);
        w[i].high = expanded_avx2(type, high, from + before_avx2(bits, 2 * i + 1) * SIZES[type]);
    }
}
AVX2 void unpacked_avx2(uint64_t bits, const void *kept, uint16_t *to) {
    for (int i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *)(to + 16 * i), words_avx2(bits, kept, i));
}
AVX2 __m256 eight_avx2(int type, const char *row) {
    if (type == FLOAT32) return _mm256_loadu_ps((const float *)row);
    if (type == INT8) return widened_avx2(type, _mm_loadl_epi64((const __m128i *)row));
    return widened_avx2(type, _mm_loadu_si128((const __m128i *)row));
}
AVX2 void dense_avx2(int type, const void *row, Pair w[4]) {
    if (type == BFLOAT16) {
        __m256i words[4];
        for (int i = 0; i < 4; i++) words[i] = _mm256_loadu_si256((const __m256i *)row + i);
        paired_avx2(words, w);
        return;
    }
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
    case FLOAT16: return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
    default: return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
    }
}
/* 32 bfloat16, two in each lane, as the even and the odd ones. */
AVX512 void paired_avx512(__m512i words, __m512 w[2]) {
    w[0] = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
    w[1] = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32((int)0xffff0000)));
}
AVX512 void dense_avx512(int type, const void *row, __m512 w[4]) {
    if (type == BFLOAT16) {
        paired_avx512(_mm512_loadu_si512(row), w);
        paired_avx512(_mm512_loadu_si512((const char *)row + 64), w + 2);
        return;
    }
    for (int i = 0; i < 4; i++) w[i] = sixteen_avx512(type, (const char *)row + 16 * i * SIZES[type]);
}
/* Columns 32 * which to 32 * which + 31 of 16 bits, as AVX2 does it. */
AVX512 __m512i words_avx512(uint64_t bits, const char *kept, int which) {
    __m256i low = words_avx2(bits, kept, 2 * which), high = words_avx2(bits, kept, 2 * which + 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
AVX512 void packed_avx512(int type, uint64_t bits, const void *kept, __m512 w[4]) {
    const char *from = kept;
    if (type == BFLOAT16) {
        for (int i = 0; i < 2; i++) paired_avx512(words_avx512(bits, from, i), w + 2 * i);
        return;
    }
    for (int i = 0; i < 4; i++) {
        unsigned sixteen = bits >> 16 * i & 0xffff;
        w[i] = _mm512_maskz_expand_ps((__mmask16)sixteen, sixteen_avx512(type, from));
        from += __builtin_popcount(sixteen) * SIZES[type];
    }
}

#define unpacked_avx512 unpacked_avx2

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

/* 16 of 64 bytes, each 128 more than its number, as the lowest bits of 2**23, from which the sum is taken again. */
VBMI2 __m512 quarter_vbmi2(__m512i bytes, int which) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i places = _mm512_add_epi32(lanes, _mm512_set1_epi32(16 * which));
    __m512i raised = _mm512_mask_permutexvar_epi8(_mm512_set1_epi32(0x4b000000), 0x1111111111111111, places, bytes);
    return _mm512_sub_ps(_mm512_castsi512_ps(raised), _mm512_set1_ps(0x1p23f + 128));
}
/* Columns 32 * which to 32 * which + 31 of 16 bits. */
VBMI2 __m512i words_vbmi2(uint64_t bits, const char *kept, int which) {
    if (which) kept += 2 * __builtin_popcountll(bits & 0xffffffff);
    return _mm512_maskz_expand_epi16((__mmask32)(bits >> 32 * which), _mm512_loadu_si512(kept));
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
        __m512i words = words_vbmi2(bits, from, i);
        if (type == BFLOAT16) {
            paired_avx512(words, w + 2 * i);
        } else {
            w[2 * i] = _mm512_cvtph_ps(_mm512_castsi512_si256(words));
            w[2 * i + 1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(words, 1));
        }
    }
}
VBMI2 void unpacked_vbmi2(uint64_t bits, const void *kept, uint16_t *to) {
    for (int i = 0; i < 2; i++) _mm512_storeu_si512(to + 32 * i, words_vbmi2(bits, kept, i));
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
