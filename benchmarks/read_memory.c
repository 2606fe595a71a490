/* How fast memory can be read at all: a loop that only reads. packed_kernels.py compiles and calls it. */

#include <stddef.h>
#include <stdint.h>

#define LINE 8 /* 64-bit words of a line of the cache */
#define AHEAD 512
#define PIECES 64

#if defined(__x86_64__)
__attribute__((target_clones("default", "avx2", "avx512f")))
#endif
static uint64_t
read_piece(const uint64_t *from, size_t lines) {
    uint64_t all[4 * LINE] = {0}, together = 0;
    for (size_t line = 0; line + 4 <= lines; line += 4, from += 4 * LINE) {
        for (int i = 0; i < 4; i++) __builtin_prefetch(from + AHEAD + i * LINE);
        for (int i = 0; i < 4 * LINE; i++) all[i] ^= from[i];
    }
    for (int i = 0; i < 4 * LINE; i++) together ^= all[i];
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
