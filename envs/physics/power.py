"""Powers in single precision, written out so that a CPU can take several at once.

    x ** y = 2 ** (y log2 x)

log2 x: x = 2^k m with m in [sqrt(1/2), sqrt(2)], and log2 m is a series in (m - 1) / (m + 1), cut after its fourth
term. 2 ** z: a polynomial of degree 6 on what is left of z beside the nearest integer. The coefficients interpolate at
Chebyshev nodes, relative errors 7e-10 and 3e-9; what is left is the rounding of single precision. `expf` and `logf` are
as fast for one number, but calls: with them IDM's powers took an eighth of a step of a highway's traffic.
"""

import functools
from string import Template

import warp as wp

from envs.precision import Functions

TOGETHER = 8  # numbers that a CPU takes at once

# The power of `base`, at least 0, and `exponent`, at least 0 too, becomes `result`.
FORMULA = Template("""
    $I bits = __builtin_bit_cast($I, base);
    $I k = (bits - 0x3f3504f3) >> 23;
    $F m = __builtin_bit_cast($F, bits - (k << 23));
    $F s = (m - 1.0f) / (m + 1.0f);
    $F q = s * s;
    $F log2m = s * (2.88539008f + q * (0.961798843f + q * (0.576715194f + q * 0.431717701f)));
    $F z = exponent * ($k_as_float + log2m);
    z = z < -126.0f ? ($F)(-126.0f) : z;
    z = z > 126.0f ? ($F)(126.0f) : z;
    $F rounded = (z + 12582912.0f) - 12582912.0f;
    $F r = z - rounded;
    $F high = 0.0555032723f + r * (0.00961805668f + r * (0.00134004282f + r * 0.000154614447f));
    $F fraction = 1.0f + r * (0.693147207f + r * (0.240226509f + r * high));
    $F result = fraction * __builtin_bit_cast($F, ($rounded_as_int + 127) << 23);
""")
# The usual exponent, for which two products do.
FOUR = "(base * base) * (base * base)"
ONE = FORMULA.substitute(F="float", I="int", k_as_float="(float)k", rounded_as_int="(int)rounded")
EIGHT = FORMULA.substitute(
    F="Floats",
    I="Ints",
    k_as_float="__builtin_convertvector(k, Floats)",
    rounded_as_int="__builtin_convertvector(rounded, Ints)",
)


@wp.func_native(f"if (exponent == 4.0f) return {FOUR}; {ONE} return result;")
def power_single(base: wp.float32, exponent: wp.float32) -> wp.float32: ...


# A thread of a GPU has nothing to take together.
@wp.func_native(
    f"""
#if defined(__CUDA_ARCH__)
    for (int i = 0; i < count; ++i)
    {{
        float base = bases.data[i], exponent = exponents.data[i];
        {ONE}
        bases.data[i] = exponent == 4.0f ? {FOUR} : result;
    }}
#else
    typedef float Floats __attribute__((ext_vector_type({TOGETHER}), aligned(4)));
    typedef int Ints __attribute__((ext_vector_type({TOGETHER})));
    for (int i = 0; i < count; i += {TOGETHER})
    {{
        Floats base = *(const Floats*)(bases.data + i);
        Floats exponent = *(const Floats*)(exponents.data + i);
        {EIGHT}
        *(Floats*)(bases.data + i) = exponent == 4.0f ? {FOUR} : result;
    }}
#endif
"""
)
def raise_single(bases: wp.array(dtype=wp.float32), exponents: wp.array(dtype=wp.float32), count: int): ...


@functools.cache
def build(real: type) -> Functions:
    """power(base, exponent)               of two numbers that are not negative; up to 1e-37 instead of 0

    raise_all(bases, exponents, count)  the same of the first `count` of two arrays, in place, which are a multiple of
                                        `TOGETHER` long; what stands behind those is lost
    """
    if real is wp.float32:
        return Functions(power=power_single, raise_all=raise_single)

    four = real(4.0)

    @wp.func
    def power(base: real, exponent: real) -> real:
        if exponent == four:
            square = base * base
            return square * square
        return wp.pow(base, exponent)

    @wp.func
    def raise_all(bases: wp.array(dtype=real), exponents: wp.array(dtype=real), count: int):
        for k in range(count):
            bases[k] = power(bases[k], exponents[k])

    return Functions(power=power, raise_all=raise_all)
