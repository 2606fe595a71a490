/* How fast memory can be read at all: a loop that only reads, several places in turn, which memory answers faster than
   one after the other. packed_kernels.py compiles and calls it. */

#include <stddef.h>
#include <stdint.h>

#define LINE 8 /* 64-bit words of a line of the cache */
#define AHEAD 256
#define STREAMS 8
#define PIECES 64

#if defined(__x86_64__)
__attribute__((target_clones("default", "avx2", "avx512f")))
#endif
static uint64_t
read_piece(const uint64_t *from, size_t lines) {
    uint64_t all[STREAMS][LINE] = {{0}}, together = 0;
    size_t stride = lines / STREAMS * LINE;
    for (const uint64_t *end = from + stride; from < end; from += LINE)
        for (int s = 0; s < STREAMS; s++) {
            const uint64_t *here = from + s * stride;
            __builtin_prefetch(here + AHEAD);
            for (int i = 0; i < LINE; i++) all[s][i] ^= here[i];
        }
    for (int s = 0; s < STREAMS; s++)
        for (int i = 0; i < LINE; i++) together ^= all[s][i];
    return together;
}

/* Of `words` 64-bit words; the result is there so that nothing is left out. */
uint64_t read_memory(const uint64_t *from, size_t words, int threads) {
    uint64_t together = 0;
    size_t lines = words / LINE / PIECES;
#pragma omp parallel for num_threads(threads) reduction(^ : together) schedule(static)
    for (size_t piece = 0; piece < PIECES; piece++) together ^= read_piece(from + piece * lines * LINE, lines);
    return together;
}
