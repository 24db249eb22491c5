"""Test that rows of varying length are padded by their own length alone, and lose nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from batchscore.columnar.arrays import Array, ragged_to_arrow, to_arrow, to_numpy
from batchscore.columnar.ragged import Varying, make_ragged
from batchscore.models.backends.facts import TILE_ROWS, OutputSpec
from batchscore.models.backends.torch.buckets import (
    bucket_lengths,
    bucket_rows,
    cut_tiles,
    fill_tile,
    tile_array,
    tile_shape,
)
from batchscore.models.backends.torch.forward import Forward
from batchscore.stages.infer import infer
from tests.factory import make_batch, make_block

LONGEST = 100
VARYING = {"ids": Varying(LONGEST)}
LENGTHS = st.lists(st.integers(0, LONGEST), min_size=1, max_size=300)


@pytest.mark.parametrize("longest", [1, 7, 8, 9, 16, 100, 512, 513, 100_000, 2**31 - 1])
def test_buckets_rise_to_the_longest_row(longest: int) -> None:
    """Each is at most twice as long as the one before, and the last is `max_length`."""
    lengths = bucket_lengths(longest)
    assert lengths[-1] == longest
    assert (np.diff(lengths) > 0).all()
    assert (lengths[1:] <= 2 * lengths[:-1]).all()
    assert lengths[0] <= 8


@given(st.integers(1, 5000), st.integers(1, 1 << 20))
def test_longer_rows_come_in_smaller_tiles(length: int, rows: int) -> None:
    """A tile has no more rows than others, eight steps for each of these, and one row at least.

    Of some rows none is left over from groups of 64, in which kernels take them.
    The number of rows of a GPU's micro-batch replaces that of a tile.
    """
    found = bucket_rows(length, rows)
    assert 1 <= found <= rows
    assert found == 1 or (found * length <= 8 * rows and found % 64 == 0)


def test_tiles_of_the_cpu_are_as_the_page_says() -> None:
    """docs/model-folder.md tells the first buckets, and the rows of three of them."""
    assert bucket_lengths(512).tolist()[:7] == [8, 16, 24, 32, 48, 64, 96]
    assert [bucket_rows(length, TILE_ROWS) for length in (8, 128, 192)] == [1024, 64, 1]


@given(LENGTHS, st.sampled_from([1, 3, 64, 1024]))
def test_each_row_is_in_one_tile_that_its_length_chose(lengths: list[int], rows: int) -> None:
    """The tiles hold each row once, in the smallest bucket that is long enough."""
    inputs = {"ids": _ragged(lengths)}
    tiles = cut_tiles(inputs, len(lengths), rows, VARYING)
    places = [place for tile in tiles for place in np.arange(len(lengths))[tile.places]]
    assert sorted(places) == list(range(len(lengths)))
    buckets = bucket_lengths(LONGEST).tolist()
    for tile in tiles:
        assert tile.rows == bucket_rows(tile.length, rows)
        assert 1 <= tile.kept <= tile.rows
        for place in np.arange(len(lengths))[tile.places]:
            assert tile.length == min(each for each in buckets if each >= lengths[place])


@given(LENGTHS, st.integers(0, 2), st.sampled_from([1, 7, 64]))
def test_a_tile_holds_each_rows_numbers_and_then_pads(
    lengths: list[int], width: int, rows: int
) -> None:
    """Beyond a row's own steps there is nothing but the pad, and beyond the last row itself."""
    ragged = _ragged(lengths, width)
    for tile in cut_tiles({"ids": ragged}, len(lengths), rows, VARYING):
        made = np.full(tile_shape(ragged, tile), 55, ragged.dtype)
        fill_tile(ragged, tile, -7, made)
        assert made.tobytes() == tile_array(ragged, tile, -7).tobytes()
        for row, place in enumerate(np.arange(len(lengths))[tile.places]):
            own = ragged.steps_n[ragged.offsets[place] : ragged.offsets[place + 1]]
            assert made[row, : len(own)].tolist() == own.tolist()
            assert (made[row, len(own) :] == -7).all()
        assert (made[tile.kept :] == made[tile.kept - 1]).all()


def test_other_inputs_go_with_their_rows() -> None:
    """Next to tokens, an input of one length is cut into the same tiles, the last repeated."""
    lengths = [3, 90, 8, 9]
    ages = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    inputs = {"ids": _ragged(lengths), "age": ages}
    filled = [(t, tile_array(ages, t, 0)) for t in cut_tiles(inputs, 4, 1024, VARYING)]
    assert [made[: tile.kept].tolist() for tile, made in filled] == [[1.0, 3.0], [4.0], [2.0]]
    assert all((made[tile.kept :] == made[tile.kept - 1]).all() for tile, made in filled)


@given(st.integers(1, 50), st.sampled_from([1, 7, 25]))
def test_a_tile_is_a_copy(count: int, rows: int) -> None:
    """What a network writes to its input stays out of the block, also where a tile is full."""
    ages = np.arange(count, dtype=np.float32)
    for tile in cut_tiles({"age": ages}, count, rows, {}):
        made = tile_array(ages, tile, 0)
        assert (made[tile.kept :] == made[tile.kept - 1]).all()
        made[...] = -1
    assert ages.tolist() == list(range(count))


def test_a_network_that_takes_no_empty_row_is_given_none() -> None:
    """Packed sequences, which must have a step each, are scored as long as the block's own do."""

    def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        lengths = (tensors["ids"] != 0).sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(
            tensors["ids"], lengths, batch_first=True, enforce_sorted=False
        )
        return nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)[0].sum(1)

    ids = ragged_to_arrow(make_ragged(np.arange(1, 13), np.array([3, 1, 8])))
    block = make_block(make_batch(id=np.arange(3)), values=make_batch(ids=ids))
    done = infer(block, Forward(call, (), "cpu", 1, varying=VARYING))
    assert done.values is not None
    assert done.values.column(0).to_pylist() == [1 + 2 + 3, 4, sum(range(5, 13))]


def test_long_tails_cost_little() -> None:
    """For each useful step there are under 0.3 padded ones; padding to the longest makes over 13.

    Lengths fall off as those of texts do: the median is 24 steps, the longest of a block 512.
    """
    numbers = np.random.default_rng(0).lognormal(3.2, 0.9, 16_384)
    lengths = np.minimum(numbers, 512).astype(int).tolist()
    useful = sum(lengths)
    tiles = cut_tiles({"ids": _ragged(lengths)}, len(lengths), 1024, {"ids": Varying(512)})
    padded = sum(tile.rows * tile.length for tile in tiles) - useful
    to_longest = len(lengths) * max(lengths) - useful
    assert padded / useful < 0.3
    assert to_longest / useful > 13


def test_the_network_sees_the_pad_that_was_declared() -> None:
    """Each of two inputs is padded with its own number, here 7 and none."""
    forward = Forward(
        lambda tensors: {name: tensors[name].sum(1) for name in ("ids", "mask")},
        (),
        "cpu",
        1,
        varying={"ids": Varying(LONGEST, 7), "mask": Varying(LONGEST)},
    )
    ones = ragged_to_arrow(make_ragged(np.ones(12, np.int64), np.array([3, 0, 9])))
    values = make_batch(ids=ones, mask=ones)
    done = infer(make_block(make_batch(id=np.arange(3)), values=values), forward)
    assert done.values is not None
    assert done.values.to_pydict() == {"ids": [3 + 35, 56, 9 + 49], "mask": [3, 0, 9]}


def _ragged(lengths: list[int], width: int = 0) -> Any:
    shape = (sum(lengths), width) if width else (sum(lengths),)
    numbers = np.random.default_rng(sum(lengths)).integers(1, 50, shape)
    return make_ragged(numbers, np.array(lengths, np.int64))


class Encoder(nn.Module):
    """Attention among a row's tokens, and the mean of what it makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.layers = nn.ModuleList(
            [nn.TransformerEncoderLayer(24, 3, 40, 0.0, "gelu", batch_first=True) for _ in range(2)]
        )
        self.head = nn.Linear(24, 1)

    def forward(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        own = tensors["mask"].unsqueeze(2).float()
        x = self.embed(tensors["ids"])
        bias = (tensors["mask"] == 0).float() * -1e9
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=bias)
        logits: torch.Tensor = self.head((x * own).sum(1) / own.sum(1).clamp(min=1))
        return logits


class Mean(nn.Module):
    """The mean of the tokens' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 7, padding_idx=0), nn.Linear(7, 1)

    def forward(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        lengths = tensors["mask"].sum(1, keepdim=True).clamp(min=1)
        logits: torch.Tensor = self.head(self.embed(tensors["ids"]).sum(1) / lengths)
        return logits


class Heads(nn.Module):
    """The mean of the tokens' vectors, under curves of which kernels take groups of numbers."""

    width = 1

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 7, padding_idx=0), nn.Linear(7, self.width)

    def forward(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        lengths = tensors["mask"].sum(1, keepdim=True).clamp(min=1)
        return _curves(self.head(self.embed(tensors["ids"]).sum(1) / lengths))


class Heads3(Heads):
    """Three of them."""

    width = 3


class Heads5(Heads):
    """Five of them."""

    width = 5


def _curves(x: torch.Tensor) -> torch.Tensor:
    curves = (torch.sigmoid, nn.functional.silu, nn.functional.softplus, nn.functional.gelu)
    return torch.cat([curve(4 * x) for curve in curves], 1)


MODULES = [Encoder, Mean, Heads, Heads3, Heads5]


def _forward(module: type[nn.Module], threads: int = 1) -> Forward:
    torch.manual_seed(7)
    network = module().eval().requires_grad_(False)
    shape = (4 * module.width,) if issubclass(module, Heads) else ()
    outputs = (OutputSpec("logit", "float32", shape),)
    varying = {"ids": Varying(LONGEST), "mask": Varying(LONGEST)}
    return Forward(network, outputs, "cpu", threads, varying=varying)


def _scores(lengths: list[int], tokens: list[Array], forward: Forward) -> Array:
    numbers = np.concatenate([np.empty(0, np.int64), *tokens])
    ids = ragged_to_arrow(make_ragged(numbers, np.array(lengths, np.int64)))
    mask = ragged_to_arrow(make_ragged(np.ones_like(numbers), np.array(lengths, np.int64)))
    block = make_block(
        make_batch(id=to_arrow(np.arange(len(lengths)))), values=make_batch(ids=ids, mask=mask)
    )
    done = infer(block, forward)
    assert done.values is not None
    return to_numpy(done.values.column("logit"))


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
@settings(deadline=None, max_examples=12)
@given(
    lengths=st.lists(st.integers(0, LONGEST), min_size=1, max_size=400),
    seed=st.integers(0, 99),
    cut=st.integers(0, 400),
    threads=st.sampled_from([1, 3]),
)
def test_a_rows_bits_depend_on_its_own_tokens_only(
    module: type[nn.Module], lengths: list[int], seed: int, cut: int, threads: int
) -> None:
    """In any order, in blocks of any size and on any threads, each row has the same bits."""
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(1, 50, length) for length in lengths]
    whole = _scores(lengths, tokens, _forward(module))
    order = rng.permutation(len(lengths))
    parts = [part for part in (order[:cut], order[cut:]) if len(part)]
    scored = np.concatenate(
        [
            _scores(
                [lengths[i] for i in part], [tokens[i] for i in part], _forward(module, threads)
            )
            for part in parts
        ]
    )
    assert scored.tobytes() == whole[order].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("length", [8, 24, 48, 64, 96, 100])
def test_a_rows_bits_are_the_same_at_each_place_of_a_full_tile(
    module: type[nn.Module], length: int
) -> None:
    """Rows of one bucket that fill two tiles, moved round by one and by some, keep their bits."""
    rows = 2 * bucket_rows(length, TILE_ROWS)
    tokens = [np.random.default_rng(row).integers(1, 50, length) for row in range(rows)]
    whole = _scores([length] * rows, tokens, _forward(module))
    for shift in {1, 5 % rows, rows // 3}:
        moved = _scores([length] * rows, [*tokens[-shift:], *tokens[:-shift]], _forward(module))
        assert np.roll(moved, -shift, 0).tobytes() == whole.tobytes()


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from([1, 64, 192]), st.sampled_from([1, 3, 5]), st.booleans(), st.integers(1, 200)
)
def test_whole_groups_leave_no_number_over(rows: int, width: int, half: bool, shift: int) -> None:
    """In tiles of each size that may be asked for, rows moved round keep their bits."""
    x = np.random.default_rng(width).normal(size=(200, width)).astype(np.float32)
    kind = torch.float16 if half else torch.float32
    forward = Forward(lambda tensors: _curves(tensors["x"].to(kind)), (), "cpu", 1, rows)
    scored = []
    for moved in (x, np.roll(x, shift, 0)):
        values = make_batch(x=to_arrow(moved))
        done = infer(make_block(make_batch(id=np.arange(200)), values=values), forward)
        assert done.values is not None
        scored.append(to_numpy(done.values.column(0)))
    assert np.roll(scored[1], -shift, 0).tobytes() == scored[0].tobytes()


def test_padding_changes_no_mean() -> None:
    """The scores are those of the rows one by one, without any padding."""
    lengths = [0, 1, 8, 9, 57, 100]
    tokens = [np.arange(length) % 49 + 1 for length in lengths]
    forward = _forward(Encoder)
    scores = _scores(lengths, tokens, forward)
    for length, row, found in list(zip(lengths, tokens, scores, strict=True))[1:]:
        with torch.inference_mode():
            alone = forward.call(
                {
                    "ids": torch.from_numpy(row)[None],
                    "mask": torch.ones((1, length), dtype=torch.int64),
                }
            )
        np.testing.assert_allclose(found, alone[0, 0].numpy(), rtol=1e-4, atol=1e-5)
