"""Powers in single precision against those in double."""

import numpy as np
import pytest
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.physics import power

COUNT = 3 * power.TOGETHER


def raised(real, bases, exponents, together):
    """What a kernel makes of up to `COUNT` numbers, all at once or one by one."""
    powers = power.build(real)

    @wp.kernel(module="unique")
    def raise_them(bases: wp.array(dtype=real), exponents: wp.array(dtype=real), count: int, together: int):
        if together != 0:
            powers.raise_all(bases, exponents, count)
        else:
            for k in range(count):
                bases[k] = powers.power(bases[k], exponents[k])

    kind = np.float32 if real is wp.float32 else np.float64
    padded = np.zeros((2, COUNT), kind)
    padded[:, : len(bases)] = bases, exponents
    arrays = [wp.array(row, dtype=real, device="cpu") for row in padded]
    wp.launch(raise_them, 1, [*arrays, len(bases), together], device="cpu")
    return arrays[0].numpy()[: len(bases)]


shares = st.lists(
    st.tuples(st.floats(2.0**-10, 8.0, width=32), st.floats(0.5, 8.0, width=32) | st.just(4.0)),
    min_size=1,
    max_size=COUNT,
)


@settings(deadline=None, max_examples=50)
@given(shares)
def test_single_precision_is_as_good_as_its_numbers(pairs):
    bases, exponents = np.array(pairs).T
    found = raised(wp.float32, bases, exponents, together=1)
    exact = bases**exponents
    # An error of half a digit in z = y log2 x is one of as much in ln 2 ** z.
    digit = 2.0**-23
    allowed = 3 * digit + digit * np.abs(exponents * np.log(bases)) * 1.5
    assert (np.abs(found / exact - 1) < allowed).all()


@settings(deadline=None, max_examples=50)
@given(shares)
def test_together_is_one_by_one_to_the_bit(pairs):
    bases, exponents = np.array(pairs).T
    assert (raised(wp.float32, bases, exponents, 1) == raised(wp.float32, bases, exponents, 0)).all()


@pytest.mark.parametrize("real", [wp.float32, wp.float64])
@pytest.mark.parametrize("together", [0, 1])
def test_what_stands_still(real, together):
    assert raised(real, [0.0, 1.0, 0.0], [4.0, 3.7, 3.5], together).tolist() == pytest.approx(
        [0, 1, 0], rel=0, abs=1e-37
    )


def test_double_precision_is_the_librarys():
    bases, exponents = np.linspace(0.01, 1.3, 20), np.linspace(3.5, 4.5, 20)
    np.testing.assert_allclose(raised(wp.float64, bases, exponents, 1), bases**exponents, rtol=1e-14)
