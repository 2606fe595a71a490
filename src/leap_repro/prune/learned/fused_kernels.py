"""LEAP's gates as Triton kernels: each block of weights is read once, its noise and its mask never reach memory.

Import it where there is a GPU and triton only; `fused.py` calls it and says what comes out. A program takes BLOCK
weights in the order in which they lie, each of its counters four of them.
"""

import triton
import triton.language as tl

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def uniform_block(key, draw, first, BLOCK: tl.constexpr):
    """The numbers of `philox.uniforms` in one draw, to the bit, at the positions `first` (a multiple of 4) to
    `first + BLOCK - 1`, and their distances from 1."""
    counter = first // 4 + tl.arange(0, BLOCK // 4)
    low, high = (counter & 0xFFFFFFFF).to(tl.uint32), (counter >> 32).to(tl.uint32)
    a, b, c, d = tl.philox(key, low, high, tl.full(low.shape, draw, tl.uint32), tl.zeros_like(low))
    words = tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
    # 22 bits and a 1 below them, as the fraction of a float from 1 to 2: the conversion takes several times as long
    above_1 = (words >> 9 | 0x3F800001).to(tl.float32, bitcast=True)
    return above_1 - 1, 2 - above_1


@triton.jit(do_not_specialize=["key", "draw", "first"])
def uniforms_kernel(found, key: tl.uint64, draw, first: tl.int64, count, BLOCK: tl.constexpr):
    """The numbers of one draw at the positions `first` to `first + count - 1`."""
    start = first - first % 4 + tl.program_id(0).to(tl.int64) * BLOCK
    u, _ = uniform_block(key, draw, start, BLOCK)
    place = start - first + tl.arange(0, BLOCK)
    tl.store(found + place, u, mask=(place >= 0) & (place < count))


@triton.jit
def inverse(x):
    """1 / x of a positive x, within 2^-21 of itself: the root is one instruction, a division nine."""
    root = tl.rsqrt(x)
    return root * root


@triton.jit
def log_ratio(a, b):
    """log(a / b) of positive numbers: e log 2 + 2 artanh(s), s = (a 2^-e - b) / (a 2^-e + b), e as makes |s| < 1/5.

    Five terms of the series: the sixth is below 2^-26 of the first. A logarithm alone takes twice as long.
    """
    exponent = (a.to(tl.int32, bitcast=True) - b.to(tl.int32, bitcast=True) + 0x400000) >> 23
    a = (a.to(tl.int32, bitcast=True) - (exponent << 23)).to(tl.float32, bitcast=True)
    s = (a - b) * inverse(a + b)
    t = s * s
    series = 2.0 + t * (2.0 / 3 + t * (2.0 / 5 + t * (2.0 / 7 + t * (2.0 / 9))))
    return exponent.to(tl.float32) * LN_2 + s * series


@triton.jit
def soft_gates(theta, key, first, scale, sharpness, GUMBELS: tl.constexpr, BLOCK: tl.constexpr):
    """m = sigmoid((kappa theta + noise) / tau), float32; `sharpness` is 1 / (tau log 2), `scale` kappa times that."""
    u, rest = uniform_block(key, 0, first, BLOCK)
    if GUMBELS == 2:
        noise = log_ratio(u, rest)
    else:
        noise = -tl.log(-tl.log(u))
    return inverse(1 + tl.exp2(-(scale * theta + sharpness * noise)))


@triton.jit(do_not_specialize=["key"])
def product_kernel(
    theta,
    weight,
    product,
    sums,
    key: tl.uint64,
    scale,
    sharpness,
    count,
    GUMBELS: tl.constexpr,
    HARD: tl.constexpr,
    ABSOLUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """W * M; and of each block, at `sums` [blocks, 2], the sum of M and the size of W * M."""
    block = tl.program_id(0).to(tl.int64)
    first, place = block * BLOCK, tl.arange(0, BLOCK)
    inside = place < count - first
    w = tl.load(weight + first + place, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(theta + first + place, mask=inside, other=0.0).to(tl.float32)
    m = soft_gates(t, key, first, scale, sharpness, GUMBELS, BLOCK)
    if HARD:
        m = tl.where(m > 0.5, 1.0, 0.0)
    masked = w * m
    tl.store(product + first + place, masked.to(product.dtype.element_ty), mask=inside)
    tl.store(sums + 2 * block, tl.sum(tl.where(inside, m, 0.0)))
    tl.store(sums + 2 * block + 1, tl.sum(tl.abs(masked) if ABSOLUTE else masked * masked))


@triton.jit(do_not_specialize=["key"])
def gradient_kernel(
    theta,
    weight,
    at_product,
    at_theta,
    key: tl.uint64,
    scale,
    sharpness,
    slope,
    at_sum,
    at_size,
    count,
    GUMBELS: tl.constexpr,
    HARD: tl.constexpr,
    ABSOLUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient at theta from the one at W * M and from the slopes in M's sum and in the size of W * M;
    `slope` is kappa / tau."""
    first, place = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = place < count - first
    w = tl.load(weight + first + place, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(theta + first + place, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(at_product + first + place, mask=inside, other=0.0).to(tl.float32)
    soft = soft_gates(t, key, first, scale, sharpness, GUMBELS, BLOCK)
    m = tl.where(soft > 0.5, 1.0, 0.0) if HARD else soft
    if ABSOLUTE:
        at_mask = g * w + at_size * tl.abs(w) + at_sum
    else:
        at_mask = (g + 2 * at_size * (w * m)) * w + at_sum
    found = slope * (at_mask * (soft * (1 - soft)))
    tl.store(at_theta + first + place, found.to(at_theta.dtype.element_ty), mask=inside)
