"""Vectors of 8 and 16 float32 as numba types: the few instructions that LLVM does not find on its own.

Loops over contiguous floats are left to the compiler. Transposing 8x8 blocks, interleaving RGB, rounding to half
precision and sums that must stay in registers are written here once, in LLVM's portable vectors: 16 floats are one
register on AVX-512, two on AVX2, four on NEON.

Indices count elements, are never negative and are not checked. No alignment is needed.
"""

from collections.abc import Sequence
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES, WIDE = 8, 16


class FloatVector(types.Type):
    """Numba's type of `lanes` float32."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@register_model(FloatVector)
class _FloatVectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: FloatVector) -> None:
        super().__init__(manager, numba_type, _vector(ir.FloatType(), numba_type.lanes))


float32x8, float32x16 = FloatVector(LANES), FloatVector(WIDE)


def _vector(element, lanes: int = LANES):
    return ir.VectorType(element, lanes)


def _constant(vector_type, value):
    return ir.Constant(vector_type, [value] * vector_type.count)


def _address(context, builder, array_type, array, index, as_type):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), as_type.as_pointer())


def _load(context, builder, array_type, array, index, as_type):
    loaded = builder.load(_address(context, builder, array_type, array, index, as_type))
    loaded.align = array_type.dtype.bitwidth // 8
    return loaded


def _store(context, builder, array_type, array, index, value):
    stored = builder.store(value, _address(context, builder, array_type, array, index, value.type))
    stored.align = array_type.dtype.bitwidth // 8
    return context.get_dummy_value()


def _shuffle(builder, a, b, lanes: Sequence[int]):
    return builder.shuffle_vector(a, b, ir.Constant(_vector(ir.IntType(32), len(lanes)), list(lanes)))


@intrinsic
def load(typing_context, array, index):
    """Eight consecutive floats of a float32 array."""

    def code(context, builder, signature, args):
        return _load(context, builder, signature.args[0], *args, _vector(ir.FloatType()))

    return float32x8(array, index), code


@intrinsic
def load_wide(typing_context, array, index):
    """Sixteen consecutive floats of a float32 array."""

    def code(context, builder, signature, args):
        return _load(context, builder, signature.args[0], *args, _vector(ir.FloatType(), WIDE))

    return float32x16(array, index), code


@intrinsic
def load_bytes(typing_context, array, index):
    """Sixteen consecutive bytes of a uint8 array, as floats."""

    def code(context, builder, signature, args):
        loaded = _load(context, builder, signature.args[0], *args, _vector(ir.IntType(8), WIDE))
        return builder.uitofp(loaded, _vector(ir.FloatType(), WIDE))

    return float32x16(array, index), code


@intrinsic
def broadcast(typing_context, array, index):
    """One float of a float32 array in all of sixteen lanes."""

    def code(context, builder, signature, args):
        scalar = builder.load(_address(context, builder, signature.args[0], *args, ir.FloatType()))
        undefined = ir.Constant(_vector(ir.FloatType(), WIDE), ir.Undefined)
        first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        return _shuffle(builder, first, undefined, [0] * WIDE)

    return float32x16(array, index), code


@intrinsic
def zero(typing_context):
    """Sixteen zeros."""

    def code(context, builder, signature, args):
        return _constant(_vector(ir.FloatType(), WIDE), 0.0)

    return float32x16(), code


@intrinsic
def store(typing_context, array, index, value):
    """Writes the lanes of `value` to consecutive elements of a float32 array."""

    def code(context, builder, signature, args):
        return _store(context, builder, signature.args[0], *args)

    return types.none(array, index, value), code


@intrinsic
def store_half(typing_context, array, index, value):
    """Writes eight float16, rounded to nearest even, as bits of a uint16 array."""

    def code(context, builder, signature, args):
        halves = builder.fptrunc(args[2], _vector(ir.HalfType()))
        return _store(context, builder, signature.args[0], *args[:2], builder.bitcast(halves, _vector(ir.IntType(16))))

    return types.none(array, index, value), code


@intrinsic
def store_bfloat(typing_context, array, index, value):
    """Writes eight bfloat16, rounded to nearest even, as bits of a uint16 array."""

    def code(context, builder, signature, args):
        words = _vector(ir.IntType(32))
        bits = builder.bitcast(args[2], words)
        odd = builder.and_(builder.lshr(bits, _constant(words, 16)), _constant(words, 1))
        rounded = builder.add(builder.add(bits, _constant(words, 0x7FFF)), odd)
        bits = builder.trunc(builder.lshr(rounded, _constant(words, 16)), _vector(ir.IntType(16)))
        return _store(context, builder, signature.args[0], *args[:2], bits)

    return types.none(array, index, value), code


@intrinsic
def add(typing_context, a, b):
    """a + b."""

    def code(context, builder, signature, args):
        return builder.fadd(*args)

    return a(a, b), code


@intrinsic
def multiply_add(typing_context, a, b, c):
    """a * b + c, fused where the processor can."""

    def code(context, builder, signature, args):
        return builder.fadd(builder.fmul(args[0], args[1], flags=("contract",)), args[2], flags=("contract",))

    return a(a, b, c), code


@intrinsic
def round_to_255ths(typing_context, value):
    """floor(value + 0.5) / 255: whole numbers 0..255 to [0, 1]."""

    def code(context, builder, signature, args):
        kind = args[0].type
        function = ir.FunctionType(kind, [kind])
        floor = cgutils.get_or_insert_function(builder.module, function, f"llvm.floor.v{kind.count}f32")
        whole = builder.call(floor, [builder.fadd(args[0], _constant(kind, 0.5))])
        return builder.fmul(whole, _constant(kind, 1 / 255))

    return value(value), code


@intrinsic
def transpose(typing_context, a, b, c, d, e, f, g, h):
    """The columns of eight rows of eight."""

    def code(context, builder, signature, args):
        rows = list(args)
        for half in (1, 2, 4):
            # Swap the off-diagonal blocks of side `half` in every pair of rows that far apart.
            low = [lane if lane & half == 0 else lane - half + LANES for lane in range(LANES)]
            high = [lane + half if lane & half == 0 else lane + LANES for lane in range(LANES)]
            for i in range(LANES):
                if i & half == 0:
                    pair = rows[i], rows[i + half]
                    rows[i], rows[i + half] = _shuffle(builder, *pair, low), _shuffle(builder, *pair, high)
        return context.make_tuple(builder, signature.return_type, rows)

    return types.UniTuple(float32x8, LANES)(a, b, c, d, e, f, g, h), code


@intrinsic
def interleave(typing_context, r, g, b):
    """rrrrrrrr gggggggg bbbbbbbb to rgbrgbrg brgbrgbr gbrgbrgb."""

    def code(context, builder, signature, args):
        # One permutation puts channel c of pixel i into lane (3 i + c) % 8, where every output wants it; the rest
        # are blends, which cost next to nothing.
        placed = []
        for c, channel in enumerate(args):
            lanes = [0] * LANES
            for i in range(LANES):
                lanes[(3 * i + c) % LANES] = i
            placed.append(_shuffle(builder, channel, channel, lanes))
        outputs = []
        for q in range(3):
            channel_of = [(LANES * q + lane) % 3 for lane in range(LANES)]
            rg = _shuffle(builder, placed[0], placed[1], [n + LANES * (channel_of[n] == 1) for n in range(LANES)])
            outputs.append(
                _shuffle(builder, rg, placed[2], [n + LANES * (channel_of[n] == 2) for n in range(LANES)])
            )
        return context.make_tuple(builder, signature.return_type, outputs)

    return types.UniTuple(float32x8, 3)(r, g, b), code


def _prefers_512_bits() -> bool:
    # LLVM keeps to 256 bits because the first AVX-512 processors lowered their clock for 512; from Ice Lake and Zen 4
    # on (which brought VBMI2) they do not, and the colour loops run 1.4 times as fast.
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512vbmi2", False))


@intrinsic
def widest_vectors(typing_context):
    """Lets LLVM vectorise the loops of the calling function with the widest registers there are."""
    prefer = _prefers_512_bits()

    def code(context, builder, signature, args):
        if prefer:
            # llvmlite's own `add` knows no attributes with a value.
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), code
