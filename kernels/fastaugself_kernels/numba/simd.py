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


class Vector(types.Type):
    """Numba's type of `lanes` float32, or of `lanes` 16-bit floats as bits."""

    def __init__(self, bits: int, lanes: int) -> None:
        self.bits, self.lanes = bits, lanes
        super().__init__(name=f"float{bits}x{lanes}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, _vector(ir.FloatType() if vector.bits == 32 else _SHORT, vector.lanes))


float32x8, float32x16, float16x16 = Vector(32, LANES), Vector(32, WIDE), Vector(16, WIDE)
_SHORT, _INT = ir.IntType(16), ir.IntType(32)


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
    return builder.store(value, _address(context, builder, array_type, array, index, value.type))


def _shuffle(builder, a, b, lanes: Sequence[int]):
    return builder.shuffle_vector(a, b, ir.Constant(_vector(_INT, len(lanes)), list(lanes)))


@intrinsic
def load(typing_context, array, index):
    """Eight consecutive floats of a float32 array."""

    def code(context, builder, signature, args):
        return _load(context, builder, signature.args[0], *args, _vector(ir.FloatType()))

    return float32x8(array, index), code


@intrinsic
def load_pair(typing_context, array, first, second):
    """Four consecutive floats from `first` on, and four from `second` on."""

    def code(context, builder, signature, args):
        halves = [
            _load(context, builder, signature.args[0], args[0], index, _vector(ir.FloatType(), 4)) for index in args[1:]
        ]
        return _shuffle(builder, *halves, range(LANES))

    return float32x8(array, first, second), code


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
def prefetch(typing_context, array, index):
    """Starts bringing the cache line of an element into the second-level cache. The address need not exist."""

    def code(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        address = builder.bitcast(_address(context, builder, signature.args[0], *args, ir.IntType(8)), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, *(ir.Constant(_INT, n) for n in (0, 2, 1))])  # read, level 2, data
        return context.get_dummy_value()

    return types.none(array, index), code


@intrinsic
def broadcast(typing_context, array, index):
    """One float of a float32 array in all of sixteen lanes."""

    def code(context, builder, signature, args):
        scalar = builder.load(_address(context, builder, signature.args[0], *args, ir.FloatType()))
        undefined = ir.Constant(_vector(ir.FloatType(), WIDE), ir.Undefined)
        first = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
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
    """Writes the lanes of `value` to consecutive elements of an array of its element type."""

    def code(context, builder, signature, args):
        stored = _store(context, builder, signature.args[0], *args)
        stored.align = signature.args[0].dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.none(array, index, value), code


@intrinsic
def stream(typing_context, array, index, value):
    """Stores a vector past the caches, at an address aligned to it. A `fence` must follow the last one."""

    def code(context, builder, signature, args):
        stored = _store(context, builder, signature.args[0], *args)
        stored.align = value.lanes * value.bits // 8
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT, 1)]))
        return context.get_dummy_value()

    return types.none(array, index, value), code


@intrinsic
def fence(typing_context):
    """Makes what was streamed visible to the other threads."""

    def code(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), code


@intrinsic
def to_half(typing_context, value):
    """Sixteen float16, rounded to nearest even, as bits."""

    def code(context, builder, signature, args):
        return builder.bitcast(builder.fptrunc(args[0], _vector(ir.HalfType(), WIDE)), _vector(_SHORT, WIDE))

    return float16x16(value), code


@intrinsic
def to_bfloat(typing_context, value):
    """Sixteen bfloat16, rounded to nearest even, as bits."""

    def code(context, builder, signature, args):
        words = _vector(_INT, WIDE)
        bits = builder.bitcast(args[0], words)
        odd = builder.and_(builder.lshr(bits, _constant(words, 16)), _constant(words, 1))
        rounded = builder.add(builder.add(bits, _constant(words, 0x7FFF)), odd)
        return builder.trunc(builder.lshr(rounded, _constant(words, 16)), _vector(_SHORT, WIDE))

    return float16x16(value), code


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
def transpose(typing_context, a, b, c, d):
    """Transposes two 4x4 blocks: four rows of the first in lanes 0..3, of the second in lanes 4..7."""

    def code(context, builder, signature, args):
        def shuffle(x, y, lanes):  # 0..3 are of x, 4..7 of y, within a block
            first = [lane if lane < 4 else lane + 4 for lane in lanes]
            return _shuffle(builder, x, y, [*first, *(lane + 4 for lane in first)])

        a, b, c, d = args
        ab_low, ab_high = shuffle(a, b, [0, 4, 1, 5]), shuffle(a, b, [2, 6, 3, 7])
        cd_low, cd_high = shuffle(c, d, [0, 4, 1, 5]), shuffle(c, d, [2, 6, 3, 7])
        columns = [
            shuffle(ab_low, cd_low, [0, 1, 4, 5]),
            shuffle(ab_low, cd_low, [2, 3, 6, 7]),
            shuffle(ab_high, cd_high, [0, 1, 4, 5]),
            shuffle(ab_high, cd_high, [2, 3, 6, 7]),
        ]
        return context.make_tuple(builder, signature.return_type, columns)

    return types.UniTuple(float32x8, 4)(a, b, c, d), code


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
            outputs.append(_shuffle(builder, rg, placed[2], [n + LANES * (channel_of[n] == 2) for n in range(LANES)]))
        return context.make_tuple(builder, signature.return_type, outputs)

    return types.UniTuple(float32x8, 3)(r, g, b), code


@intrinsic
def interleave_padded(typing_context, r, g, b):
    """rrrrrrrr gggggggg bbbbbbbb to rgb0rgb0 rgb0rgb0 rgb0rgb0 rgb0rgb0."""

    def code(context, builder, signature, args):
        r, g, b = args
        zeros = _constant(r.type, 0.0)
        outputs = []
        for i in range(0, LANES, 2):
            rg = _shuffle(builder, r, g, [i, LANES + i] * 2 + [i + 1, LANES + i + 1] * 2)
            b0 = _shuffle(builder, b, zeros, [i, LANES] * 2 + [i + 1, LANES] * 2)
            outputs.append(_shuffle(builder, rg, b0, [0, 1, LANES, LANES + 1, 4, 5, LANES + 4, LANES + 5]))
        return context.make_tuple(builder, signature.return_type, outputs)

    return types.UniTuple(float32x8, 4)(r, g, b), code


@intrinsic
def join(typing_context, a, b):
    """The eight lanes of a, then those of b."""

    def code(context, builder, signature, args):
        return _shuffle(builder, *args, range(WIDE))

    return float32x16(a, b), code


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


@intrinsic
def keep_apart(typing_context):
    """Never inlines the calling function: inlining it would cost seconds of compilation and gain nothing."""

    def code(context, builder, signature, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.none(), code


@intrinsic
def inline_always(typing_context):
    """Inlines the calling function into its callers, whatever its size."""

    def code(context, builder, signature, args):
        builder.function.attributes.add("alwaysinline")
        return context.get_dummy_value()

    return types.none(), code
