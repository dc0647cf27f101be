"""The arithmetic of a secure sum: laws that hold for any vectors, bounds and numbers of members."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_pipelines.federation.announcement import Announcement
from lepton_pipelines.federation.keys import mask_keys
from lepton_pipelines.federation.secure_sum import (
    FIELD,
    SecureSumError,
    add_up,
    forms_agree,
    lay_out,
    linear_form,
    mask,
    masked_parts,
    pack,
    summed_parts,
    unmask,
    unpack,
    unpacked_parts,
)
from lepton_pipelines.sums import BoundExceeded

BOUNDS = st.one_of(st.integers(0, 2**63 - 1), st.sampled_from([0, 1, 2**31, 2**59, 2**62, 2**63 - 1]))


@st.composite
def sums_of_members(draw):
    """Vectors of some members, within a bound that their total keeps too."""
    members = draw(st.sampled_from([2, 3, 4, 7]))
    bound = draw(BOUNDS)
    length = draw(st.integers(0, 40))
    seed = draw(st.integers(0, 2**32 - 1))
    share = bound // members
    random = np.random.default_rng(seed)
    return bound, [random.integers(-share, share, length, endpoint=True) for _ in range(members)]


def keys_of(names, announcement, seed=7):
    """Pairwise and group keys of one sum, from secrets that a seed gives."""
    random = np.random.default_rng(seed)
    secrets = {frozenset((a, b)): random.bytes(32) for i, a in enumerate(names) for b in names[i + 1 :]}
    group = random.bytes(32)
    return {
        name: mask_keys(name, {o: secrets[frozenset((name, o))] for o in names if o != name}, group, announcement)
        for name in names
    }


def masked(bound, vectors, number=0):
    names = tuple(f"m{i:02}" for i in range(len(vectors)))
    announcement = Announcement("r", number, "s", vectors[0].shape, bound, b"", names)
    layout = lay_out(vectors[0].size, bound, len(names))
    keys = keys_of(names, announcement)
    uploads = [
        mask(vector, layout, add=keys[name].add, subtract=keys[name].subtract)
        for name, vector in zip(names, vectors, strict=True)
    ]
    return layout, uploads, keys[names[0]].group


@given(sums_of_members())
@settings(deadline=None, max_examples=40)
def test_masks_cancel_and_the_total_is_exact(case):
    bound, vectors = case
    layout, uploads, group = masked(bound, vectors)
    travelled = [unpack(pack([upload], layout), layout) for upload in uploads]
    answer = unpack(pack([add_up(travelled)], layout), layout)
    total = unmask(answer, layout, subtract=group, shape=vectors[0].shape, bound=bound, members=len(vectors))
    np.testing.assert_array_equal(total, sum(vector.astype(object) for vector in vectors))


@given(sums_of_members(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_the_form_of_the_answer_is_the_sum_of_the_forms(case, seed):
    bound, vectors = case
    _, uploads, _ = masked(bound, vectors)
    answer = add_up(uploads)
    challenge = np.random.default_rng(seed).bytes(16)
    forms = [linear_form(challenge, [upload]) for upload in uploads]
    assert forms_agree(challenge, forms, linear_form(challenge, [answer]), answer.nbytes // 16)


@pytest.mark.parametrize("change", [1, 1 << 39, 1 << 63])
@pytest.mark.parametrize("cell", [0, 1, 49])
@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_no_change_of_one_cell_passes_the_check(change, cell, seed):
    random = np.random.default_rng(seed)
    bound = 2**59
    _, uploads, _ = masked(bound, [random.integers(-1000, 1000, 50) for _ in range(3)])
    answer = add_up(uploads)
    answer[cell] = (int(answer[cell]) + change) % 2**64
    challenge = random.bytes(16)
    forms = [linear_form(challenge, [upload]) for upload in uploads]
    assert not forms_agree(challenge, forms, linear_form(challenge, [answer]), answer.nbytes // 16)


@given(st.binary(min_size=16, max_size=16), st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=12))
@settings(deadline=None, max_examples=40)
def test_the_form_is_the_polynomial_over_the_prime_field(challenge, cells):
    cells = cells[: len(cells) // 2 * 2]
    point = int.from_bytes(challenge, "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    value = 0
    for low, high in zip(cells[::2], cells[1::2], strict=True):
        value = (value + low + (high << 64) + (1 << 128)) * point % FIELD
    assert linear_form(challenge, [np.array(cells, np.uint64)]) == value % 2**128


def test_a_mask_that_did_not_cancel_shows_in_the_zero_words():
    vectors = [np.arange(5)] * 3
    layout, uploads, group = masked(100, vectors)
    _, others, _ = masked(100, vectors, number=1)
    wrong = add_up([uploads[0], uploads[1], others[2]])
    with pytest.raises(SecureSumError, match="masks did not cancel"):
        unmask(wrong, layout, subtract=group, shape=(5,), bound=100, members=3)


def test_a_total_beyond_the_bound_is_seen_and_does_not_wrap_into_it():
    for bound in (3, 100, 2**31, 2**59, 2**62):
        layout, uploads, group = masked(bound, [np.full(4, bound)] * 3)
        with pytest.raises(BoundExceeded):
            unmask(add_up(uploads), layout, subtract=group, shape=(4,), bound=bound, members=3)


def test_an_answer_that_no_sum_can_reach_is_refused():
    layout, uploads, group = masked(100, [np.arange(5)] * 3)
    answer = add_up(uploads)
    answer[2] = np.iinfo(answer.dtype).max
    with pytest.raises(SecureSumError, match="no sum of the members' cells can reach"):
        unmask(answer, layout, subtract=group, shape=(5,), bound=100, members=3)


@pytest.mark.parametrize("field", ["run", "number", "name", "shape", "bound", "context", "members", "epoch"])
def test_masks_depend_on_everything_that_was_announced(field):
    usual = {
        "run": "r",
        "number": 0,
        "name": "s",
        "shape": (5,),
        "bound": 9,
        "context": b"",
        "members": ("a", "b", "c"),
        "epoch": 1,
    }
    other = {
        "run": "q",
        "number": 1,
        "name": "t",
        "shape": (1, 5),
        "bound": 10,
        "context": b"x",
        "members": ("a", "b", "d"),
        "epoch": 2,
    }
    one = Announcement(**usual)
    two = Announcement(**{**usual, field: other[field]})
    pairs = {"b": b"p" * 32, "c": b"q" * 32}
    first, second = (mask_keys("a", pairs, b"g" * 32, announcement) for announcement in (one, two))
    assert not set(first.add) & set(second.add) and first.group != second.group


def test_one_sum_takes_a_key_of_its_own_from_every_pair_and_the_group():
    names = tuple(f"m{i}" for i in range(6))
    keys = keys_of(names, Announcement("r", 0, "s", (5,), 9, b"", names))
    used = [key for name in names for key in (*keys[name].add, *keys[name].subtract)]
    assert len(set(used)) == 6 * 5 // 2 + 1  # each pair's is used by both, the group's by the first member


@pytest.mark.parametrize("width", range(1, 9))
def test_cells_of_every_width_survive_packing(width):
    bound = 2 ** (8 * width - 6) if width < 8 else 2**58
    for values in (0, 1, 2, 3, 17, 5_000):
        layout = lay_out(values, bound, 3)
        assert layout.width == width
        cells = np.zeros(layout.padded, layout.dtype)
        cells[: layout.cells] = np.random.default_rng(width).integers(0, 2 ** (8 * width) - 1, layout.cells, np.uint64)
        assert len(pack([cells], layout)) == layout.size
        np.testing.assert_array_equal(unpack(pack([cells], layout), layout), cells)
        np.testing.assert_array_equal(unpack(bytes(pack([cells], layout)), layout), cells)


@pytest.mark.parametrize("bound", [10, 1000, 2**18, 2**34, 2**42, 2**50, 2**58, 2**63 - 1])
@pytest.mark.parametrize("values", [0, 1, 7, 8, 33, 300])
def test_a_sum_in_parts_is_the_sum_at_once(bound, values, monkeypatch):
    random = np.random.default_rng(values)
    vectors = [random.integers(-(bound // 3), bound // 3, values) for _ in range(3)]
    layout, uploads, group = masked(bound, vectors)
    answer, challenge = add_up(uploads), random.bytes(16)
    monkeypatch.setattr("lepton_pipelines.federation.secure_sum._CHUNK", 64)
    keys = [random.bytes(32), random.bytes(32)]
    there = pack(masked_parts(vectors[0], layout, add=keys[:1], subtract=keys[1:]), layout)
    assert there == pack([mask(vectors[0], layout, add=keys[:1], subtract=keys[1:])], layout)
    for one, again in zip(uploads, masked(bound, vectors)[1], strict=True):
        np.testing.assert_array_equal(one, again)
    travelled = [pack([upload], layout) for upload in uploads]
    summed = pack(summed_parts(travelled, layout), layout)
    assert summed == pack([answer], layout)
    assert linear_form(challenge, unpacked_parts(summed, layout)) == linear_form(challenge, [answer])
    total = unmask(summed, layout, subtract=group, shape=(values,), bound=bound, members=3)
    np.testing.assert_array_equal(total, sum(vectors))


def test_the_modulus_is_no_wider_than_the_bound_asks_for():
    widths = {bound: lay_out(1, bound, 3).width for bound in (10, 1000, 2**18, 2**34, 2**42, 2**50, 2**58)}
    assert widths == {10: 1, 1000: 2, 2**18: 3, 2**34: 5, 2**42: 6, 2**50: 7, 2**58: 8}
