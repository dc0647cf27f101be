"""The arithmetic of a secure sum: masking, adding up, unmasking and the check of a hub that lies. No I/O.

Every member adds keystreams to its vector that cancel when all vectors are added up (pairwise masking as in
Bonawitz et al., "Practical Secure Aggregation", CCS 2017, without its secret sharing: a partial sum is never
released here), and one member adds a keystream that the hub does not know, so that the hub does not learn the total
either. All of it modulo 2^bits.

What the hub answers with is the sum of the masked vectors as integers, *not* reduced modulo 2^bits: its high bits
are the carries. A random linear form over a prime field, drawn after everything was signed, must then agree:
`sum_i <r, upload_i> = <r, answer> (mod p)`. With p above every cell there is no change, 2^63 included, that is zero in
the field. The form is the evaluation of a polynomial at a random point (Carter and Wegman), for which we use Poly1305:
p = 2^130 - 5, two 64-bit cells a coefficient, and OpenSSL does it at 9 GB/s.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305
from numpy.typing import NDArray

from lepton_pipelines.sums import BoundExceeded, Int64Array

Cells = NDArray[Any]
"""Unsigned integers, one-dimensional, of the dtype that a layout names."""

FIELD = (1 << 130) - 5
CHALLENGE_BYTES = 16
WHOLE = 1 << 20  # bytes of all vectors together up to which members are shown each and add them up themselves
_CLAMP = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF  # RFC 8439 §2.5: the bits of a point that Poly1305 uses
_CHUNK = 1 << 18  # bytes of keystream at a time: stays in the second-level cache
_ZEROS = bytes(_CHUNK)
_ZERO_BITS = 64  # masks that do not cancel pass the zero words with probability 2^-64


class SecureSumError(RuntimeError):
    """A total that must not be used: masks did not cancel, or the answer is not the sum of what was sent."""


@dataclass(frozen=True)
class Layout:
    """How the vectors of one sum lie in memory and on the wire.

    values: number of int64 values a vector has.
    limbs: 1, or 2 where values are too wide for one cell and travel as low and high 32 bits.
    bits: cells are added up modulo 2^bits.
    width: bytes that a cell takes on the wire; wide enough for the unreduced sum of all members' cells.
    zero_words: cells behind the values whose true total is zero.
    """

    values: int
    limbs: int
    bits: int
    width: int
    zero_words: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrowest native unsigned type that holds `width` bytes."""
        return np.dtype("<u1" if self.width == 1 else "<u2" if self.width == 2 else "<u4" if self.width <= 4 else "<u8")

    @property
    def cells(self) -> int:
        """Cells that a vector takes: its values' limbs and the zero words."""
        return self.values * self.limbs + self.zero_words

    @property
    def padded(self) -> int:
        """Cells in memory: up to the next 16 bytes, which Poly1305 takes as one coefficient."""
        per_block = 16 // self.dtype.itemsize
        return -(-self.cells // per_block) * per_block

    @property
    def size(self) -> int:
        """Bytes of a vector on the wire."""
        return self.cells * self.width


@lru_cache(maxsize=1024)
def lay_out(values: int, bound: int, members: int) -> Layout:
    """Choose the narrowest layout for vectors of this length and totals up to ±bound.

    The modulus has room for `members` vectors that each reach the bound: a total beyond the bound then shows as such
    and does not wrap around into it. Of the moduli that take the same bytes, the widest.
    """
    if members < 2:
        raise ValueError(f"a secure sum takes two members or more, not {members}")
    carry = (members - 1).bit_length()
    for limbs, limb_bound in ((1, bound), (2, (1 << 32) - 1)):
        needed = (members * max(limb_bound, 1)).bit_length() + 1
        width = -(-(needed + carry) // 8)
        if width <= 8:
            bits = 8 * width - carry
            return Layout(values, limbs, bits, width, -(-_ZERO_BITS // bits))
    raise ValueError(f"a sum over {members} members is more than the federation adds up")


def packed_layout(cells: int, width: int) -> Layout:
    """Return the layout as far as the hub knows it: how many cells, how many bytes each."""
    return Layout(values=cells, limbs=1, bits=8 * width, width=width, zero_words=0)


def mask(
    vector: Int64Array,
    layout: Layout,
    *,
    add: Iterable[bytes],
    subtract: Iterable[bytes],
) -> Cells:
    """Hide a vector under keystreams.

    vector: int64, any shape, `layout.values` values.
    add, subtract: AES-256 keys that are used for this one vector and never again.
    Returns cells modulo 2^bits, (layout.padded,), the padding zero; never a view of the vector.
    """
    out = _encode(vector, layout)
    streams = [(_keystream(key), np.add) for key in add] + [(_keystream(key), np.subtract) for key in subtract]
    itemsize = layout.dtype.itemsize
    per_chunk = _CHUNK // itemsize
    buffer = bytearray(min(_CHUNK, layout.cells * itemsize) + 15)
    modulus_mask = layout.dtype.type((1 << layout.bits) - 1)
    for begin in range(0, layout.cells, per_chunk):
        part = out[begin : min(begin + per_chunk, layout.cells)]
        words = np.frombuffer(buffer, layout.dtype, len(part))
        zeros = memoryview(_ZEROS)[: part.nbytes]
        for stream, combine in streams:
            stream.update_into(zeros, buffer)
            combine(part, words, out=part)
        np.bitwise_and(part, modulus_mask, out=part)
    return out


def unmask(
    total: Cells, layout: Layout, *, subtract: bytes, shape: tuple[int, ...], bound: int, members: int
) -> Int64Array:
    """Turn the hub's answer into the total.

    total: the unreduced sum of all members' cells, (layout.padded,).
    subtract: the key of the group mask.
    Raises SecureSumError if a carry is impossible or a zero word is not zero, BoundExceeded if a cell of the total is
    beyond the bound.
    """
    highest = members * ((1 << layout.bits) - 1)
    cells = np.empty_like(total)
    signed_type = layout.dtype.str.replace("u", "i")
    modulus_mask, sign = (layout.dtype.type(n) for n in ((1 << layout.bits) - 1, 1 << layout.bits - 1))
    itemsize = layout.dtype.itemsize
    per_chunk = _CHUNK // itemsize
    buffer = bytearray(min(_CHUNK, layout.cells * itemsize) + 15)
    stream = _keystream(subtract)
    for begin in range(0, layout.cells, per_chunk):
        end = min(begin + per_chunk, layout.cells)
        part = cells[begin:end]
        if int(total[begin:end].max()) > highest:
            raise SecureSumError("the hub's answer holds a cell that no sum of the members' cells can reach")
        stream.update_into(memoryview(_ZEROS)[: part.nbytes], buffer)
        np.subtract(total[begin:end], np.frombuffer(buffer, layout.dtype, len(part)), out=part)
        np.bitwise_and(part, modulus_mask, out=part)
        np.bitwise_xor(part, sign, out=part)  # these two carry the sign up; shifts would take five times as long
        np.subtract(part, sign, out=part)
    signed = cells[: layout.cells].view(signed_type)
    values = layout.values * layout.limbs
    if signed[values:].any():
        raise SecureSumError("masks did not cancel: a word whose true total is zero is not zero")
    return _decode(signed[:values], layout, bound).reshape(shape)


def add_up(uploads: Sequence[Cells]) -> Cells:
    """The hub's part: the sum of the members' cells as integers, carries included."""
    total = uploads[0].copy()
    for upload in uploads[1:]:
        np.add(total, upload, out=total)
    return total


def linear_form(challenge: bytes, cells: Cells) -> int:
    """Evaluate the polynomial that the cells are the coefficients of at the challenge's point.

    challenge: 16 bytes that nobody could know before the cells were signed for.
    cells: (layout.padded,); contiguous.
    Returns the value modulo 2^128: Poly1305 reduces modulo p and then cuts off two bits.
    """
    tag = Poly1305.generate_tag(challenge + bytes(16), cells.view(np.uint8).data)
    return int.from_bytes(tag, "little")


def forms_agree(challenge: bytes, forms: Sequence[int], answer: int, blocks: int) -> bool:
    """Check that the forms of all uploads add up to the form of the hub's answer.

    forms: of every member's upload; answer: of the hub's answer; blocks: 16-byte coefficients that each covers.
    A wrong answer passes with a probability of at most (3·members + 4)·blocks / 2^106.
    """
    point = int.from_bytes(challenge, "little") & _CLAMP
    excess = (len(forms) - 1) * _ones(point, blocks)
    difference = (sum(forms) - answer - excess) % FIELD
    # each form is known modulo 2^128 only: it stands for up to four values below p
    return any((k << 128) % FIELD == difference for k in range(-3 * len(forms), 4))


def pack(cells: Cells, layout: Layout) -> bytearray:
    """Cells as they travel: `layout.width` bytes each, little-endian, without the padding."""
    itemsize = layout.dtype.itemsize
    out = bytearray(layout.size + itemsize - layout.width)
    # each word is written whole; its unused high bytes are overwritten by the next word, the last ones cut off
    np.ndarray(layout.cells, layout.dtype, out, strides=(layout.width,))[...] = cells[: layout.cells]
    del out[layout.size :]
    return out


def unpack(data: bytes | bytearray | memoryview, layout: Layout) -> Cells:
    """Read packed cells back. Raises ValueError if the length is not the layout's."""
    if len(data) != layout.size:
        raise ValueError(f"{len(data)} bytes, {layout.cells} cells of {layout.width} bytes are {layout.size}")
    cells = np.zeros(layout.padded, layout.dtype)
    spare = layout.dtype.itemsize - layout.width
    whole = max(layout.cells - spare, 0) if spare else layout.cells  # words that can be read without passing the end
    low = layout.dtype.type((1 << 8 * layout.width) - 1)
    np.bitwise_and(
        np.ndarray(whole, layout.dtype, data, strides=(layout.width,)) if whole else cells[:0], low, out=cells[:whole]
    )
    for i in range(whole, layout.cells):
        cells[i] = int.from_bytes(data[i * layout.width : (i + 1) * layout.width], "little")
    return cells


def message_bytes(layout: Layout, members: int) -> Mapping[str, int]:
    """Bytes of payload that one member sends and receives in a sum: vectors, and what is signed around them."""
    signed = 64 + 32  # a signature over a digest
    if members * layout.size <= WHOLE:
        sent, received = layout.size + 2 * signed, members * layout.size + (members - 1) * 2 * signed
    else:
        sent = layout.size + 3 * signed + CHALLENGE_BYTES
        received = layout.size + (members - 1) * (3 * signed + CHALLENGE_BYTES)
    return {"sent": sent, "received": received}


def _keystream(key: bytes) -> Any:
    """AES-256 in counter mode from block 0: the key is used once, so there is nothing for a nonce to tell apart."""
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()


def _encode(vector: Int64Array, layout: Layout) -> Cells:
    out = np.zeros(layout.padded, layout.dtype)
    flat = vector.reshape(-1)
    if layout.limbs == 1:
        out[: layout.values].view(layout.dtype.str.replace("u", "i"))[...] = flat
    else:
        np.bitwise_and(flat, 0xFFFFFFFF, out=out[: layout.values].view(np.int64))
        np.right_shift(flat, 32, out=out[layout.values : 2 * layout.values].view(np.int64))
    return out


def _decode(signed: Cells, layout: Layout, bound: int) -> Int64Array:
    if layout.limbs == 1:
        total: Int64Array = signed.astype(np.int64, copy=layout.dtype.itemsize == 8)
    else:
        low, high = signed[: layout.values], signed[layout.values :]
        high = high + (low >> 32)
        if high.size and (int(high.min()) < -(1 << 31) or int(high.max()) >= 1 << 31):
            raise BoundExceeded("a cell of the total does not fit int64")
        total = (high << 32) | (low & 0xFFFFFFFF)
    if total.size and not (-bound <= int(total.min()) and int(total.max()) <= bound):
        beyond = int(np.count_nonzero((total > bound) | (total < -bound)))
        raise BoundExceeded(f"{beyond} of {total.size} cells of the total are beyond the bound {bound}")
    return total


def _ones(point: int, blocks: int) -> int:
    """`2^128 · (x + x² + … + x^blocks)` modulo p: Poly1305 sets a bit above every coefficient."""
    if point in (0, 1):
        return (point * blocks << 128) % FIELD
    powers = (pow(point, blocks + 1, FIELD) - point) * pow(point - 1, -1, FIELD)
    return (powers << 128) % FIELD
