"""Gradients as integers: 30 bits below a power of two that all parties share.

Integer sums do not depend on their order, so neither does the model. The power is the smallest that no gradient
of any party exceeds: each party counts its largest gradient's exponent, the counts are summed, the highest that
was counted is taken. Hessians have a power of their own.

30 bits are what an int32 holds beside the sign. With 24 some near-ties of late rounds (rare classes, fitted rows)
fell to the other side than XGBoost's double sums; with 30 none did, and the bytes that a sum takes stay the same.
"""

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.sums import Int64Array

Float32Array = NDArray[np.float32]
Int32Array = NDArray[np.int32]

BITS = 30
# Exponents that are told apart. Below the lowest a gradient counts as zero, above the highest none can be.
LOWEST, HIGHEST = -64, 128
EXPONENTS = HIGHEST - LOWEST + 1


def count_exponents(largest_gradient: float, largest_hessian: float) -> Int64Array:
    """Return the vector by which a party takes part in finding the powers: int64, 2 * EXPONENTS, two ones.

    largest_gradient, largest_hessian: absolute values; a party without rows gives 0 and counts nowhere.
    """
    counts = np.zeros((2, EXPONENTS), np.int64)
    for row, largest in zip(counts, (largest_gradient, largest_hessian), strict=True):
        if largest > 0:
            # frexp: largest = m * 2^e with 0.5 <= m < 1, so 2^e is above it.
            row[min(max(int(np.frexp(largest)[1]), LOWEST), HIGHEST) - LOWEST] = 1
    return counts.ravel()


def read_exponents(counts: Int64Array) -> tuple[int, int]:
    """Return the exponents of gradient and hessian that the summed counts agree on."""
    highest = [int(np.flatnonzero(row)[-1]) if row.any() else 0 for row in counts.reshape(2, EXPONENTS)]
    return highest[0] + LOWEST, highest[1] + LOWEST


def scale_of(exponent: int) -> float:
    """Return the integer that stands for 1.0 under this power, a power of two itself."""
    return float(np.ldexp(1.0, BITS - exponent))


@kernel
def largest_pair(pairs: Float32Array, lo: int, hi: int, out: Float32Array) -> None:
    """Write the largest absolute gradient and hessian of pairs[2 * lo : 2 * hi] to out, float32, (2,)."""
    # The bits of floats that are not negative order as the floats do, with NaN above all: a training that left the
    # numbers must stop, not go on quietly. Integers let this become vector code.
    bits = pairs[2 * lo : 2 * hi].view(np.int32)
    g = h = np.int32(0)
    for i in range(hi - lo):
        g = max(g, bits[2 * i] & np.int32(0x7FFFFFFF))
        h = max(h, bits[2 * i + 1] & np.int32(0x7FFFFFFF))
    largest = out.view(np.int32)
    largest[0], largest[1] = g, h


@kernel
def quantise(pairs: Float32Array, lo: int, hi: int, gradient_scale: float, hessian_scale: float) -> None:
    """Turn gradients into integers in place: float32 in, the bits of int32 out."""
    values = pairs[2 * lo : 2 * hi]
    integers = values.view(np.int32)
    for i in range(hi - lo):
        g = np.rint(np.float64(values[2 * i]) * gradient_scale)
        h = np.rint(np.float64(values[2 * i + 1]) * hessian_scale)
        integers[2 * i] = np.int32(g)
        integers[2 * i + 1] = np.int32(h)
