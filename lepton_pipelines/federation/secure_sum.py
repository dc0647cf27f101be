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

Long vectors are worked on in *parts* that stay in the cache, from the bytes that travel and into them: an array of
all cells would cost more in pages that the system has to clear than the arithmetic takes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

Packed = bytes | bytearray | memoryview
"""Cells as they travel: `layout.width` bytes each, little-endian, without the padding."""

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
    out = np.zeros(layout.padded, layout.dtype)
    for _ in masked_parts(vector, layout, add=add, subtract=subtract, out=out):
        pass
    return out


def masked_parts(
    vector: Int64Array, layout: Layout, *, add: Iterable[bytes], subtract: Iterable[bytes], out: Cells | None = None
) -> Iterator[Cells]:
    """Yield in order what `mask` returns, part by part.

    out: where the cells are to stand; without it each part is overwritten by the next.
    """
    streams = [(_keystream(key), np.add) for key in add] + [(_keystream(key), np.subtract) for key in subtract]
    flat, buffer = vector.reshape(-1), _buffer(layout)
    modulus_mask = layout.dtype.type((1 << layout.bits) - 1)
    own = np.empty(_longest(layout) if out is None else 0, layout.dtype)
    for begin, end in _ranges(layout):
        part = own[: end - begin] if out is None else out[begin:end]
        _encode(flat, layout, begin, part)
        words = np.frombuffer(buffer, layout.dtype, len(part))
        zeros = memoryview(_ZEROS)[: part.nbytes]
        for stream, combine in streams:
            stream.update_into(zeros, buffer)
            combine(part, words, out=part)
        np.bitwise_and(part, modulus_mask, out=part)
        yield part


def unmask(
    total: Cells | Packed, layout: Layout, *, subtract: bytes, shape: tuple[int, ...], bound: int, members: int
) -> Int64Array:
    """Turn the hub's answer into the total.

    total: the unreduced sum of all members' cells: (layout.padded,), or as it travels.
    subtract: the key of the group mask.
    Raises SecureSumError if a carry is impossible or a zero word is not zero, BoundExceeded if a cell of the total is
    beyond the bound.
    """
    highest = members * ((1 << layout.bits) - 1)
    cells = np.empty(layout.cells, layout.dtype)
    signed_type = layout.dtype.str.replace("u", "i")
    modulus_mask, sign = (layout.dtype.type(n) for n in ((1 << layout.bits) - 1, 1 << layout.bits - 1))
    buffer, stream = _buffer(layout), _keystream(subtract)
    for begin, end in _ranges(layout):
        part = cells[begin:end]
        if isinstance(total, np.ndarray):
            part[...] = total[begin:end]
        else:
            _read(total, layout, begin, part)
        if int(part.max()) > highest:
            raise SecureSumError("the hub's answer holds a cell that no sum of the members' cells can reach")
        stream.update_into(memoryview(_ZEROS)[: part.nbytes], buffer)
        np.subtract(part, np.frombuffer(buffer, layout.dtype, len(part)), out=part)
        np.bitwise_and(part, modulus_mask, out=part)
        np.bitwise_xor(part, sign, out=part)  # these two carry the sign up; shifts would take five times as long
        np.subtract(part, sign, out=part)
    signed = cells.view(signed_type)
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


def summed_parts(uploads: Sequence[Packed], layout: Layout) -> Iterator[Cells]:
    """Yield in order what `add_up` returns, part by part, from uploads as they travel.

    Each part is overwritten by the next. Raises ValueError if a length is not the layout's.
    """
    for upload in uploads:
        _check_length(upload, layout)
    total, other = (np.empty(_longest(layout), layout.dtype) for _ in range(2))
    for begin, end in _ranges(layout):
        part = total[: end - begin]
        _read(uploads[0], layout, begin, part)
        for upload in uploads[1:]:
            _read(upload, layout, begin, other[: end - begin])
            np.add(part, other[: end - begin], out=part)
        yield part


def linear_form(challenge: bytes, parts: Iterable[Cells]) -> int:
    """Evaluate the polynomial that the cells are the coefficients of at the challenge's point.

    challenge: 16 bytes that nobody could know before the cells were signed for.
    parts: the cells in order, contiguous; each of them whole coefficients of 16 bytes.
    Returns the value modulo 2^128: Poly1305 reduces modulo p and then cuts off two bits.
    """
    form = Poly1305(challenge + bytes(16))
    for part in parts:
        form.update(part.view(np.uint8).data)
    return int.from_bytes(form.finalize(), "little")


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


def pack(parts: Iterable[Cells], layout: Layout) -> bytearray:
    """Cells as they travel. parts: the cells in order; padding behind them is left out."""
    itemsize, begin = layout.dtype.itemsize, 0
    out = bytearray(layout.size + itemsize - layout.width)
    for part in parts:
        count = min(len(part), layout.cells - begin)
        # each word is written whole; its unused high bytes are overwritten by the next word, the last ones cut off
        words = np.ndarray(count, layout.dtype, out, begin * layout.width, strides=(layout.width,))
        words[...] = part[:count]
        begin += count
        del words
    del out[layout.size :]
    return out


def unpack(data: Packed, layout: Layout) -> Cells:
    """Read packed cells back, all of them. Raises ValueError if the length is not the layout's."""
    _check_length(data, layout)
    cells = np.zeros(layout.padded, layout.dtype)
    _read(data, layout, 0, cells[: layout.cells])
    return cells


def unpacked_parts(data: Packed, layout: Layout) -> Iterator[Cells]:
    """Yield in order what `unpack` returns, padding included. Each part is overwritten by the next."""
    _check_length(data, layout)
    cells = np.zeros(_longest(layout) + layout.padded - layout.cells, layout.dtype)
    for begin, end in _ranges(layout):
        _read(data, layout, begin, cells[: end - begin])
        if end < layout.cells:
            yield cells[: end - begin]
        else:
            cells[end - begin :] = 0
            yield cells[: layout.padded - begin]


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


def _ranges(layout: Layout) -> Iterator[tuple[int, int]]:
    """Where parts begin and end: as long as the cache holds, and whole coefficients of a form but for the last."""
    step = _CHUNK // layout.dtype.itemsize
    return ((begin, min(begin + step, layout.cells)) for begin in range(0, layout.cells, step))


def _longest(layout: Layout) -> int:
    return min(_CHUNK // layout.dtype.itemsize, layout.cells)


def _buffer(layout: Layout) -> bytearray:
    """Room for a part's keystream, and for what a cipher asks for beyond it."""
    return bytearray(_longest(layout) * layout.dtype.itemsize + 15)


def _check_length(data: Packed, layout: Layout) -> None:
    if len(data) != layout.size:
        raise ValueError(f"{len(data)} bytes, {layout.cells} cells of {layout.width} bytes are {layout.size}")


def _read(data: Packed, layout: Layout, begin: int, out: Cells) -> None:
    """Read the packed cells from number `begin` on."""
    width, end = layout.width, begin + len(out)
    spare = layout.dtype.itemsize - width
    whole = max(min(end, layout.cells - spare) - begin, 0)  # words that can be read without passing the end
    if whole:
        low = layout.dtype.type((1 << 8 * width) - 1)
        words = np.ndarray(whole, layout.dtype, data, begin * width, strides=(width,))
        np.bitwise_and(words, low, out=out[:whole])
    for i in range(begin + whole, end):
        out[i - begin] = int.from_bytes(data[i * width : (i + 1) * width], "little")


def _encode(flat: Int64Array, layout: Layout, begin: int, out: Cells) -> None:
    """Write a vector's cells from number `begin` on, zero words included."""
    end, values = begin + len(out), layout.values
    for limb in range(layout.limbs):
        first, last = max(begin, limb * values), min(end, (limb + 1) * values)
        if first >= last:
            continue
        given, cells = flat[first - limb * values : last - limb * values], out[first - begin : last - begin]
        if layout.limbs == 1:
            cells.view(layout.dtype.str.replace("u", "i"))[...] = given
        elif limb == 0:
            np.bitwise_and(given, 0xFFFFFFFF, out=cells.view(np.int64))
        else:
            np.right_shift(given, 32, out=cells.view(np.int64))
    out[max(values * layout.limbs - begin, 0) :] = 0


def _decode(signed: Cells, layout: Layout, bound: int) -> Int64Array:
    if layout.limbs == 1:
        total: Int64Array = signed.astype(np.int64, copy=False)
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
