/* The loops of one form. kernels.c includes this once a form, with FORM (its suffix), VECTOR (16 floats), STREAMS and TARGET (its
   instructions); zero_, load_, store_, fma_, add_, splat_, sum_, packed_, unpacked_ and dense_ of that suffix are there. */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define FN(name) JOIN(name, FORM)
#define LOCAL static inline __attribute__((always_inline)) TARGET

/* The next 64 weights of a row as four vectors; moves `from` behind them. */
LOCAL void FN(next)(const Job *job, const uint64_t *mask, int64_t column, const char **from, VECTOR w[4],
                    const int type, const int packed) {
    const int64_t size = SIZES[type], left = job->columns - column;
    if (packed) {
        FN(packed)(type, *mask, *from, w);
        *from += __builtin_popcountll(*mask) * size;
    } else if (left >= WORD) {
        FN(dense)(type, *from, w);
        *from += WORD * size;
    } else {
        _Alignas(64) char last[WORD * 4] = {0};
        memcpy(last, *from, (size_t)(left * size));
        FN(dense)(type, last, w);
        *from += left * size;
    }
}

/* Rows row, row + step, ... of R streams, times T tokens, into sums[R][T]; moves each of `from` to its next row.
   Memory answers several streams faster than one. All loops but those over words and groups unroll. */
LOCAL void FN(rows)(const Job *job, int64_t row, int64_t step, const char **from, const float *x, float *sums,
                    const int type, const int packed, const int R, const int T) {
    const int64_t words = job->words / job->groups;
    const int lines = packed ? (type == FLOAT32 ? 2 : 1) : WORD * SIZES[type] / 64; /* of the cache, a word's */
    VECTOR total[STREAMS][4], even[STREAMS][4], odd[STREAMS][4], w[4];
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) total[r][t] = even[r][t] = odd[r][t] = FN(zero)();
    for (int64_t group = 0, word = 0; group < job->groups; group++) {
        for (int r = 0; r < R && type == INT8; r++)
            for (int t = 0; t < T; t++) even[r][t] = odd[r][t] = FN(zero)();
        for (int64_t end = word + words; word < end; word++) {
            for (int r = 0; r < R; r++) {
                const uint64_t *mask = packed ? job->mask + (row + r * step) * job->words + word : NULL;
                for (int line = 0; line < lines; line++) __builtin_prefetch(from[r] + PREFETCH + 64 * line);
                FN(next)(job, mask, word * WORD, &from[r], w, type, packed);
                for (int t = 0; t < T; t++) {
                    const float *with = x + t * job->stride + word * WORD;
                    even[r][t] = FN(fma)(w[0], FN(load)(with), even[r][t]);
                    odd[r][t] = FN(fma)(w[1], FN(load)(with + 16), odd[r][t]);
                    even[r][t] = FN(fma)(w[2], FN(load)(with + 32), even[r][t]);
                    odd[r][t] = FN(fma)(w[3], FN(load)(with + 48), odd[r][t]);
                }
            }
        }
        for (int r = 0; r < R && type == INT8; r++) {
            VECTOR scale = FN(splat)(job->scales[(row + r * step) * job->groups + group]);
            for (int t = 0; t < T; t++)
                total[r][t] = FN(fma)(scale, FN(add)(even[r][t], odd[r][t]), total[r][t]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) {
            float *sum = sums + r * T + t;
            if (type == BFLOAT16) *sum = FN(sum)(even[r][t]) + FN(sum)(odd[r][t]); /* lanes are other ones: place_of */
            else *sum = FN(sum)(type == INT8 ? total[r][t] : FN(add)(even[r][t], odd[r][t]));
        }
}

/* Where a row's values are: near the end of all, in the copy. */
LOCAL const char *FN(place)(const Job *job, const char *from, const int type, const int packed) {
    int64_t start = (from - job->values) / SIZES[type];
    int in_copy = packed && start + (job->words + 1) * WORD > job->kept;
    return in_copy ? job->tail + (start - job->tail_start) * SIZES[type] : from;
}

/* R streams of `step` rows each, from `first` on, which is a multiple of ROWS_A_START as `step` is if R > 1. */
LOCAL void FN(streams)(const Job *job, int64_t first, int64_t step, const int type, const int packed, const int R) {
    const char *from[STREAMS];
    for (int r = 0; r < R; r++) {
        int64_t row = first + r * step;
        from[r] = job->values + (packed ? job->starts[row / ROWS_A_START] : row * job->columns) * SIZES[type];
    }
    for (int64_t row = first; row < first + step; row++) {
        const char *here[STREAMS], *next[STREAMS] = {0};
        float sums[STREAMS * 4];
        for (int r = 0; r < R; r++) here[r] = FN(place)(job, from[r], type, packed);
        for (int t = 0, together; t < job->tokens; t += together) {
            const float *x = job->x + t * job->stride;
            for (int r = 0; r < R; r++) next[r] = here[r];
            together = R == 1 && t + 4 <= job->tokens ? 4 : 1;
            if (R == 1 && together == 4) FN(rows)(job, row, step, next, x, sums, type, packed, 1, 4);
            else FN(rows)(job, row, step, next, x, sums, type, packed, R, 1);
            for (int r = 0; r < R; r++)
                for (int i = 0; i < together; i++)
                    put(job->out, job->out_type, (t + i) * job->rows + row + r * step, sums[r * together + i]);
        }
        for (int r = 0; r < R; r++) from[r] += next[r] - here[r];
    }
}

LOCAL void FN(some_rows)(const Job *job, int64_t first, int64_t last, const int type, const int packed) {
    int64_t step = job->tokens == 1 ? (last - first) / STREAMS / ROWS_A_START * ROWS_A_START : 0;
    if (step) FN(streams)(job, first, step, type, packed, STREAMS);
    first += STREAMS * step;
    if (first < last) FN(streams)(job, first, last - first, type, packed, 1);
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

/* 64 weights of a row into `out`, of which the first `left` are there; bfloat16 stays as it is or is widened. */
LOCAL void FN(unpack_word)(uint64_t bits, const char *from, float scale, void *out, int64_t at, int64_t left,
                           const int type, const int out_type) {
    VECTOR w[4];
    float wide[WORD];
    uint16_t words[WORD];
    if (type == BFLOAT16 && out_type == BFLOAT16 && left >= WORD) {
        FN(unpacked)(bits, from, (uint16_t *)out + at);
        return;
    }
    if (type == BFLOAT16) {
        FN(unpacked)(bits, from, words);
        for (int i = 0; i < WORD; i++) wide[i] = float_of_bfloat16(words[i]);
    } else {
        FN(packed)(type, bits, from, w);
        for (int i = 0; i < 4; i++) FN(store)(wide + 16 * i, w[i]);
    }
    for (int64_t i = 0; i < (left < WORD ? left : WORD); i++)
        put(out, out_type, at + i, type == INT8 ? wide[i] * scale : wide[i]);
}

LOCAL void FN(unpack_rows)(const Job *job, int64_t first, int64_t last, const int type, const int out_type) {
    const char *from = job->values + job->starts[first / ROWS_A_START] * SIZES[type];
    const int64_t words = job->words / job->groups;
    for (int64_t row = first; row < last; row++) {
        const char *here = FN(place)(job, from, type, 1), *next = here;
        const uint64_t *mask = job->mask + row * job->words;
        for (int64_t word = 0; word < job->words; word++) {
            float scale = type == INT8 ? job->scales[row * job->groups + word / words] : 1;
            int64_t done = word * WORD, at = row * job->columns + done;
            FN(unpack_word)(mask[word], next, scale, job->out, at, job->columns - done, type, out_type);
            next += __builtin_popcountll(mask[word]) * SIZES[type];
        }
        from += next - here;
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
#undef STREAMS
