/* y = W x for a few tokens, W [rows, columns] given by a bit mask and the values that it keeps; or dense.

   Every form (AVX-512 with and without VBMI2, AVX2, plain C) does the same sums in the same order: column c goes by a
   fused multiply-add into lane c % 32, the lanes are folded in halves. A dropped weight is +0 and is multiplied like
   any other, so packed and dense give the same bits, NaN and infinity of x included, on every form, for any number of
   threads and of tokens. kernels_form.h has the loops, which are compiled once a form. Nothing here depends on the
   machine that compiles: each form names its instructions, and the processor's flags are asked at run time.

   The Python face (kernels.py) checks whatever comes in: types, shapes, and that the mask has as many bits as there
   are values. */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "masks are read as words whose first byte is the lowest: without this file, torch computes"
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define WORD 64      /* columns of a word of the mask */
#define ROWS_A_START 8 /* rows that share one entry of `starts` */
#define MOST_TOKENS 8
#define CHUNKS_A_THREAD 4
#define PREFETCH 2048 /* bytes ahead */

enum { FLOAT32, BFLOAT16, FLOAT16, INT8 };
static const int SIZES[] = {4, 2, 2, 1};

typedef struct {
    int type;                 /* of the values */
    const char *values;       /* [kept], row after row; of a dense matrix [rows, columns] */
    int64_t kept;
    const uint64_t *mask;     /* [rows, words], the first column in the lowest bit; NULL: dense */
    const int64_t *starts;    /* of rows 0, 8, 16, ...: how many values stand before */
    const float *scales;      /* [rows, groups] of int8, else NULL */
    int64_t groups, rows, columns, words;
    const char *tail;         /* a copy of values[tail_start:] with room behind: vectors are loaded whole */
    int64_t tail_start;
    const float *x;           /* [tokens, stride], 0 from `columns` on */
    int64_t stride;
    int tokens;
    void *out;                /* y [tokens, rows], or the unpacked [rows, columns] */
    int out_type;             /* FLOAT32 or BFLOAT16 */
} Job;

INLINE float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE float float_of_bfloat16(uint16_t bits) { return float_of_bits((uint32_t)bits << 16); }

INLINE float float_of_float16(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent == 0) { /* zero or subnormal: fraction * 2**-24 */
        float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return float_of_bits(sign | (exponent == 31 ? 255u << 23 : (exponent + 112) << 23) | fraction << 13);
}

/* To the nearest, ties to even; NaN stays NaN. */
INLINE uint16_t bfloat16_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

INLINE void put(void *out, int type, int64_t at, float value) {
    if (type == BFLOAT16)
        ((uint16_t *)out)[at] = bfloat16_of_float(value);
    else
        ((float *)out)[at] = value;
}

/* ---- plain C ---- */

typedef struct { float lane[16]; } Plain;

INLINE Plain zero_plain(void) { return (Plain){{0}}; }
INLINE Plain load_plain(const float *from) {
    Plain all;
    memcpy(&all, from, sizeof all);
    return all;
}
INLINE void store_plain(float *to, Plain all) { memcpy(to, &all, sizeof all); }
INLINE Plain fma_plain(Plain a, Plain b, Plain c) {
    for (int i = 0; i < 16; i++) c.lane[i] = fmaf(a.lane[i], b.lane[i], c.lane[i]);
    return c;
}
INLINE Plain add_plain(Plain a, Plain b) {
    for (int i = 0; i < 16; i++) a.lane[i] += b.lane[i];
    return a;
}
INLINE Plain splat_plain(float value) {
    Plain all;
    for (int i = 0; i < 16; i++) all.lane[i] = value;
    return all;
}
INLINE float sum_plain(Plain all) {
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) all.lane[i] += all.lane[i + half];
    return all.lane[0];
}
INLINE float one_plain(int type, const void *values, int64_t at) {
    switch (type) {
    case FLOAT32: return ((const float *)values)[at];
    case BFLOAT16: return float_of_bfloat16(((const uint16_t *)values)[at]);
    case FLOAT16: return float_of_float16(((const uint16_t *)values)[at]);
    default: return ((const int8_t *)values)[at];
    }
}
INLINE void packed_plain(int type, uint64_t bits, const void *kept, Plain w[4]) {
    memset(w, 0, 4 * sizeof *w);
    for (int64_t at = 0; bits; bits &= bits - 1, at++) {
        int column = __builtin_ctzll(bits);
        w[column / 16].lane[column % 16] = one_plain(type, kept, at);
    }
}
INLINE void dense_plain(int type, const void *row, Plain w[4]) {
    for (int i = 0; i < WORD; i++) w[i / 16].lane[i % 16] = one_plain(type, row, i);
}

#define FORM plain
#define STREAMS 1 /* rows at once for one token */
#define VECTOR Plain
#define TARGET
#include "kernels_form.h"

#if defined(__x86_64__)

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
#endif

static int always(void) { return 1; }

typedef void (*Work)(const Job *job, int64_t first, int64_t last);

/* The fastest first. */
static const struct {
    const char *name;
    int (*runs_here)(void);
    Work multiply, unpack;
} FORMS[] = {
#if defined(__x86_64__)
    {"avx512vbmi2", has_vbmi2, multiply_vbmi2, unpack_vbmi2},
    {"avx512", has_avx512, multiply_avx512, unpack_avx512},
    {"avx2", has_avx2, multiply_avx2, unpack_avx2},
#endif
    {"plain", always, multiply_plain, unpack_plain},
};
static const int FORM_COUNT = sizeof FORMS / sizeof *FORMS;

/* ---- threads: OpenMP, which is the pool that torch has already started ---- */

static int forked = 0;

/* The threads of OpenMP are not there after a fork, and it would wait for them. */
static void note_fork(void) { forked = 1; }

static void over_rows(Work work, const Job *job, int threads) {
    int64_t units = (job->rows + ROWS_A_START - 1) / ROWS_A_START;
    if (threads > units) threads = (int)units;
    if (threads <= 1 || forked) {
        work(job, 0, job->rows);
        return;
    }
    int64_t chunk = ROWS_A_START * ((units + threads * CHUNKS_A_THREAD - 1) / (threads * CHUNKS_A_THREAD));
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t first = 0; first < job->rows; first += chunk)
        work(job, first, first + chunk < job->rows ? first + chunk : job->rows);
}

/* Vectors are loaded whole, so rows near the end are read from a copy with room behind it. */
static char *copied_tail(Job *job) {
    int64_t most = (job->words + 1) * WORD, size = SIZES[job->type];
    job->tail_start = job->kept > most ? job->kept - most : 0;
    char *tail = calloc((size_t)(most + WORD), (size_t)size);
    if (tail && job->kept)
        memcpy(tail, job->values + job->tail_start * size, (size_t)((job->kept - job->tail_start) * size));
    job->tail = tail;
    return tail;
}

static float *widened_x(Job *job, const void *x, int type) {
    job->stride = job->words * WORD + 16; /* not a power of two: its tokens would share few lines of the cache */
    float *wide = calloc((size_t)(job->tokens * job->stride), sizeof *wide);
    for (int64_t token = 0; wide && token < job->tokens; token++)
        for (int64_t c = 0; c < job->columns; c++)
            wide[token * job->stride + c] = one_plain(type, x, token * job->columns + c);
    job->x = wide;
    return wide;
}

static PyObject *run(PyObject *arguments, int is_multiply) {
    Job job = {0};
    int form, x_type, threads;
    unsigned long long values, mask, starts, scales, x, out;
    if (!PyArg_ParseTuple(arguments, "iiKLKKKLLLKiiKii", &form, &job.type, &values, &job.kept, &mask, &starts, &scales,
                          &job.groups, &job.rows, &job.columns, &x, &x_type, &job.tokens, &out, &job.out_type, &threads))
        return NULL;
    if (form < 0 || form >= FORM_COUNT || job.tokens > MOST_TOKENS) {
        PyErr_SetString(PyExc_ValueError, "no such form, or too many tokens");
        return NULL;
    }
    job.values = (const char *)(uintptr_t)values;
    job.mask = (const uint64_t *)(uintptr_t)mask;
    job.starts = (const int64_t *)(uintptr_t)starts;
    job.scales = (const float *)(uintptr_t)scales;
    job.out = (void *)(uintptr_t)out;
    job.words = (job.columns + WORD - 1) / WORD;
    char *tail = NULL;
    float *wide = NULL;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = (job.mask && !(tail = copied_tail(&job)))
        || (is_multiply && !(wide = widened_x(&job, (const void *)(uintptr_t)x, x_type)));
    if (!failed) over_rows(is_multiply ? FORMS[form].multiply : FORMS[form].unpack, &job, threads);
    free(tail);
    free(wide);
    Py_END_ALLOW_THREADS
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *multiply(PyObject *module, PyObject *arguments) { return run(arguments, 1); }
static PyObject *unpack(PyObject *module, PyObject *arguments) { return run(arguments, 0); }

/* {name: number} of the forms that this processor runs, the fastest first. */
static PyObject *forms(PyObject *module, PyObject *ignored) {
    PyObject *found = PyDict_New();
    for (int i = 0; found && i < FORM_COUNT; i++) {
        if (!FORMS[i].runs_here()) continue;
        PyObject *number = PyLong_FromLong(i);
        if (!number || PyDict_SetItemString(found, FORMS[i].name, number)) Py_CLEAR(found);
        Py_XDECREF(number);
    }
    return found;
}

static PyMethodDef METHODS[] = {
    {"multiply", multiply, METH_VARARGS, "y = W x"},
    {"unpack", unpack, METH_VARARGS, "W, dense"},
    {"forms", forms, METH_NOARGS, "{name: number} of the forms that run here, the fastest first"},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_kernels", NULL, -1, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    fill_places();
#endif
    pthread_atfork(NULL, NULL, note_fork);
    return PyModule_Create(&MODULE);
}
