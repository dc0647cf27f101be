"""Machine instructions that Numba does not reach by itself.

Prefetching the rows some steps ahead makes counting about twice as fast, because a node's rows lie scattered;
adding gradient and hessian in one instruction halves the loads and stores. `at` and `put` read and write an element
without asking whether the index is negative, which Numba does by four instructions an access. `fetch_add` lets
threads draw their work from one counter, `see` and `show` let them wait for each other. (Measured:
`benchmarks/README.md`.)
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

_PAIR = ir.VectorType(ir.IntType(64), 2)
ALIGNMENT = 64


@intrinsic
def _prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask the processor to bring array[index] near; the index may lie outside."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), i32, i32, i32])
        get: Any = cgutils.get_or_insert_function
        call = get(builder.module, kind, "llvm.prefetch.p0")
        builder.call(call, [address, ir.Constant(i32, 0), ir.Constant(i32, 3), ir.Constant(i32, 1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), code


@intrinsic
def _add_pair(typing: Any, histogram: Any, index: Any, gradient: Any, hessian: Any) -> Any:
    """histogram[index : index + 2] += (gradient, hessian) at once; the address is a multiple of 16 bytes."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), _PAIR.as_pointer())
        value = ir.Constant(_PAIR, ir.Undefined)
        for lane in (0, 1):
            value = builder.insert_element(value, args[2 + lane], ir.Constant(ir.IntType(32), lane))
        builder.store(builder.add(builder.load(address, align=16), value), address, align=16)
        return context.get_dummy_value()

    return types.void(histogram, types.int64, types.int64, types.int64), code


@intrinsic
def _at(typing: Any, array: Any, index: Any) -> Any:
    """array[index] of a one-dimensional array; the index is not negative."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.int64), code


@intrinsic
def _put(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value, of the array's own type; the index is not negative."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        builder.store(args[2], builder.gep(data, [args[1]]))
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), code


@intrinsic
def _fetch_add(typing: Any, array: Any, index: Any) -> Any:
    """Add 1 to array[index], int64, and return what was there before, whatever other threads do."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(array, types.int64), code


@intrinsic
def _fetch_sub(typing: Any, array: Any, index: Any) -> Any:
    """Take 1 from array[index], int64, and return what was there before, whatever other threads do."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("sub", builder.gep(data, [args[1]]), ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(array, types.int64), code


@intrinsic
def _see(typing: Any, array: Any, index: Any) -> Any:
    """array[index], int64, as other threads have left it; what they wrote before is seen from here on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(array, types.int64), code


@intrinsic
def _show(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value, int64; a thread that sees it sees all that was written before."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        builder.store_atomic(args[2], builder.gep(data, [args[1]]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), code


@intrinsic
def _lowest_bit(typing: Any, bits: Any) -> Any:
    """Number of the lowest bit that is 1; 64 if there is none."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), code


# Called from kernels without the two arguments that Numba adds, which type checkers do not know.
at: Any = _at
put: Any = _put
fetch_add: Any = _fetch_add
fetch_sub: Any = _fetch_sub
see: Any = _see
show: Any = _show
give_way: Any = types.ExternalFunction("sched_yield", types.int32())  # to whom the processor is due
prefetch: Any = _prefetch
add_pair: Any = _add_pair
lowest_bit: Any = _lowest_bit


def aligned_empty(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return an uninitialised int64 array that begins at a cache line, as `add_pair` needs."""
    size = int(np.prod(shape, dtype=np.int64)) * 8
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(np.int64).reshape(shape)
