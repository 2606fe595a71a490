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

/* Where column c stands in x, and its weight in vectors. Of a bfloat16 matrix the even ones of 32 columns stand before
   the odd ones: a lane of 32 bits that holds two neighbours gives both by a shift and a mask. */
INLINE int64_t place_of(int type, int64_t c) {
    return type == BFLOAT16 ? (c & ~(int64_t)31) + (c & 1) * 16 + (c & 31) / 2 : c;
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
        int64_t place = place_of(type, __builtin_ctzll(bits));
        w[place / 16].lane[place % 16] = one_plain(type, kept, at);
    }
}
INLINE void unpacked_plain(uint64_t bits, const void *kept, uint16_t *to) {
    memset(to, 0, WORD * sizeof *to);
    for (const uint16_t *from = kept; bits; bits &= bits - 1) to[__builtin_ctzll(bits)] = *from++;
}
INLINE void dense_plain(int type, const void *row, Plain w[4]) {
    for (int i = 0; i < WORD; i++) {
        int64_t place = place_of(type, i);
        w[place / 16].lane[place % 16] = one_plain(type, row, i);
    }
}

#define FORM plain
#define STREAMS 1 /* rows at once for one token */
#define VECTOR Plain
#define TARGET
#include "kernels_form.h"

#if defined(__x86_64__)
#include "kernels_x86.h"
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
            wide[token * job->stride + place_of(job->type, c)] = one_plain(type, x, token * job->columns + c);
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
