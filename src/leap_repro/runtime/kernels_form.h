/* The loops of one form. kernels.c includes this once a form, with FORM (its suffix), VECTOR (16 floats) and TARGET (its
   instructions); zero_, load_, store_, fma_, add_, splat_, sum_, packed_ and dense_ of that suffix are there. */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define FN(name) JOIN(name, FORM)
#define LOCAL static inline __attribute__((always_inline)) TARGET

/* One row times T tokens into sums[T]; returns where the next row's values start. All loops over T and 4 unroll. */
LOCAL const char *FN(row)(const Job *job, int64_t row, const char *from, const float *x, float *sums, const int type,
                          const int packed, const int T) {
    const int64_t words = job->words / job->groups, size = SIZES[type];
    const int lines = packed ? (type == FLOAT32 ? 2 : 1) : WORD * SIZES[type] / 64; /* of the cache, that a word reads */
    const uint64_t *mask = packed ? job->mask + row * job->words : NULL;
    int64_t column = 0;
    VECTOR total[4];
    for (int t = 0; t < T; t++) total[t] = FN(zero)();
    for (int64_t group = 0; group < job->groups; group++) {
        VECTOR sum[4][4], w[4];
        for (int t = 0; t < T; t++)
            for (int i = 0; i < 4; i++) sum[t][i] = FN(zero)();
        for (int64_t word = 0; word < words; word++, column += WORD) {
            for (int line = 0; line < lines; line++) __builtin_prefetch(from + PREFETCH + 64 * line);
            if (packed) {
#ifdef MASKPF
                __builtin_prefetch((const char*)mask + MASKPF);
#endif
                uint64_t bits = *mask++;
                FN(packed)(type, bits, from, w);
                from += __builtin_popcountll(bits) * size;
            } else if (column + WORD <= job->columns) {
                FN(dense)(type, from, w);
                from += WORD * size;
            } else {
                _Alignas(64) char last[WORD * 4] = {0};
                memcpy(last, from, (size_t)((job->columns - column) * size));
                FN(dense)(type, last, w);
                from += (job->columns - column) * size;
            }
            for (int t = 0; t < T; t++) {
                const float *with = x + t * job->stride + column;
                for (int i = 0; i < 4; i++) sum[t][i] = FN(fma)(w[i], FN(load)(with + 16 * i), sum[t][i]);
            }
        }
        for (int t = 0; t < T; t++) {
            VECTOR all = FN(add)(FN(add)(sum[t][0], sum[t][2]), FN(add)(sum[t][1], sum[t][3]));
            if (type == INT8)
                total[t] = FN(fma)(FN(splat)(job->scales[row * job->groups + group]), all, total[t]);
            else
                total[t] = all;
        }
    }
    for (int t = 0; t < T; t++) sums[t] = FN(sum)(total[t]);
    return from;
}

/* Where a row's values are: near the end of all, in the copy. */
LOCAL const char *FN(place)(const Job *job, const char *from, const int type, const int packed) {
    int64_t start = (from - job->values) / SIZES[type];
    int in_copy = packed && start + (job->words + 1) * WORD > job->kept;
    return in_copy ? job->tail + (start - job->tail_start) * SIZES[type] : from;
}

LOCAL void FN(some_rows)(const Job *job, int64_t first, int64_t last, const int type, const int packed) {
    int64_t start = packed ? job->starts[first / ROWS_A_START] : first * job->columns;
    const char *from = job->values + start * SIZES[type];
    for (int64_t row = first; row < last; row++) {
        const char *here = FN(place)(job, from, type, packed), *next = here;
        float sums[MOST_TOKENS];
        int t = 0;
        for (; t + 4 <= job->tokens; t += 4)
            next = FN(row)(job, row, here, job->x + t * job->stride, sums + t, type, packed, 4);
        for (; t < job->tokens; t++)
            next = FN(row)(job, row, here, job->x + t * job->stride, sums + t, type, packed, 1);
        for (t = 0; t < job->tokens; t++) put(job->out, job->out_type, t * job->rows + row, sums[t]);
        from += next - here;
    }
}

/* Rows first to last - 1, `first` a multiple of ROWS_A_START, times all tokens. */
TARGET static void FN(multiply)(const Job *job, int64_t first, int64_t last) {
    const int packed = job->mask != NULL;
    switch (job->type) {
    case FLOAT32:
        if (packed) FN(some_rows)(job, first, last, FLOAT32, 1);
        else FN(some_rows)(job, first, last, FLOAT32, 0);
        break;
    case BFLOAT16:
        if (packed) FN(some_rows)(job, first, last, BFLOAT16, 1);
        else FN(some_rows)(job, first, last, BFLOAT16, 0);
        break;
    case FLOAT16:
        if (packed) FN(some_rows)(job, first, last, FLOAT16, 1);
        else FN(some_rows)(job, first, last, FLOAT16, 0);
        break;
    default:
        if (packed) FN(some_rows)(job, first, last, INT8, 1);
        else FN(some_rows)(job, first, last, INT8, 0);
    }
}

LOCAL void FN(unpack_rows)(const Job *job, int64_t first, int64_t last, const int type, const int out_type) {
    const char *from = job->values + job->starts[first / ROWS_A_START] * SIZES[type];
    const int64_t size = SIZES[type], words = job->words / job->groups;
    for (int64_t row = first; row < last; row++) {
        const char *here = FN(place)(job, from, type, 1);
        const uint64_t *mask = job->mask + row * job->words;
        for (int64_t word = 0; word < job->words; word++) {
            VECTOR w[4];
            float wide[WORD];
            FN(packed)(type, mask[word], here, w);
            here += __builtin_popcountll(mask[word]) * size;
            from += __builtin_popcountll(mask[word]) * size;
            for (int i = 0; i < 4; i++) FN(store)(wide + 16 * i, w[i]);
            float scale = type == INT8 ? job->scales[row * job->groups + word / words] : 1;
            int64_t left = job->columns - word * WORD, at = row * job->columns + word * WORD;
            for (int64_t i = 0; i < (left < WORD ? left : WORD); i++)
                put(job->out, out_type, at + i, type == INT8 ? wide[i] * scale : wide[i]);
        }
    }
}

TARGET static void FN(unpack)(const Job *job, int64_t first, int64_t last) {
    const int half = job->out_type == BFLOAT16;
    switch (job->type) {
    case FLOAT32:
        if (half) FN(unpack_rows)(job, first, last, FLOAT32, BFLOAT16);
        else FN(unpack_rows)(job, first, last, FLOAT32, FLOAT32);
        break;
    case BFLOAT16:
        if (half) FN(unpack_rows)(job, first, last, BFLOAT16, BFLOAT16);
        else FN(unpack_rows)(job, first, last, BFLOAT16, FLOAT32);
        break;
    case FLOAT16:
        if (half) FN(unpack_rows)(job, first, last, FLOAT16, BFLOAT16);
        else FN(unpack_rows)(job, first, last, FLOAT16, FLOAT32);
        break;
    default:
        if (half) FN(unpack_rows)(job, first, last, INT8, BFLOAT16);
        else FN(unpack_rows)(job, first, last, INT8, FLOAT32);
    }
}

#undef JOIN_
#undef JOIN
#undef FN
#undef LOCAL
#undef FORM
#undef VECTOR
#undef TARGET
