"""Colours that stand out: closed forms, and that no patch hides one pixel of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import UserError
from perception import encoders
from perception.encoders.opponent import largest, opponent

LEVEL = st.integers(0, 255)


def pixel(r: float, g: float, b: float) -> torch.Tensor:
    return torch.tensor([r, g, b], dtype=torch.float32).view(3, 1, 1)


def test_pure_colours():
    for colour, expected in (
        ((255, 0, 0), (255, 0, 0)),
        ((0, 255, 0), (0, 255, 0)),
        ((255, 200, 0), (55, 0, 200)),
        ((0, 0, 255), (0, 0, 0)),
        ((90, 90, 90), (0, 0, 0)),
    ):
        assert opponent(pixel(*colour)).flatten().tolist() == list(expected)


@given(LEVEL, LEVEL, LEVEL, st.floats(-200, 200), st.floats(0.1, 2))
def test_light_that_is_added_leaves_them_and_more_light_scales_them(r, g, b, added, factor):
    plain = opponent(pixel(r, g, b))
    torch.testing.assert_close(opponent(pixel(r, g, b) + added), plain, atol=1e-3, rtol=0)
    torch.testing.assert_close(opponent(pixel(r, g, b) * factor), plain * factor, atol=1e-3, rtol=1e-5)


@given(st.integers(1, 5), st.integers(5, 13), st.integers(5, 13))
def test_the_largest_of_squares_is_torchs(side, height, width):
    maps = torch.rand(2, 3, height, width)
    assert torch.equal(largest(maps, side), torch.nn.functional.max_pool2d(maps, side))


@pytest.mark.parametrize("at", [(0, 0), (17, 33), (31, 47)])
def test_one_pixel_is_seen_as_strongly_wherever_it_lies_in_its_patch(at):
    """What the second layer is given of a lamp is the same at every place within a patch."""
    torch.manual_seed(0)
    encoder = encoders.build("small_opponent", 3, 32, 48)
    with torch.no_grad():
        encoder.convolutions[0].weight.zero_()
        encoder.convolutions[0].bias.zero_()
    grey = torch.full((1, 3, 32, 48), 90, dtype=torch.uint8)
    row, column = (place // 4 * 4 for place in at)
    lit = []
    for y, x in (at, (row, column), (row + 3, column + 2)):
        image = grey.clone()
        image[0, :, y, x] = torch.tensor([250, 40, 40], dtype=torch.uint8)
        lit.append(encoder.maps(image))
    assert (lit[0] - encoder.maps(grey)).abs().max() > 0
    assert torch.equal(lit[0], lit[1]) and torch.equal(lit[0], lit[2])


def test_one_lamp_anywhere_in_the_picture_is_told_everywhere():
    encoder = encoders.build("small_opponent", 3, 32, 48)
    image = torch.full((2, 3, 32, 48), 90, dtype=torch.uint8)
    image[1, :, 5, 40] = torch.tensor([30, 230, 60], dtype=torch.uint8)
    with torch.no_grad():
        told = encoder.maps(image)[:, -3:]  # red, green, yellow
    assert torch.equal(told, told[:, :, :1, :1].expand_as(told))
    assert torch.equal(told[:, :, 0, 0], torch.tensor([[0.0, 0.0, 0.0], [0.0, 170.0, 0.0]]) / 64)


def test_images_of_other_colours_are_refused():
    with pytest.raises(UserError, match="three colours a frame, not 4 channels"):
        encoders.build("small_opponent", 4, 32, 48)
