"""The adversary's view: everything that the hub saw in a whole run, and what can be made of it."""

import hashlib

import numpy as np
import pytest

from lepton_pipelines.federation.announcement import Announcement
from lepton_pipelines.federation.keys import mask_keys
from lepton_pipelines.federation.secure_sum import add_up, lay_out, mask, pack, unmask

NAMES = ("a", "b", "c", "d")
SUMS, VALUES, BOUND = 60, 600, 1 << 18


def dataset(kind, number):
    """An organisation's vectors: nearly empty, or heavy."""
    random = np.random.default_rng([kind, number])
    return random.integers(0, 3, VALUES) if kind == 0 else random.integers(60_000, 65_000, VALUES)


def run(kind, seed):
    """Everything that crosses the wire of sixty sums, if member b had this kind of data."""
    random = np.random.default_rng(seed)
    pairs = {frozenset((x, y)): random.bytes(32) for i, x in enumerate(NAMES) for y in NAMES[i + 1 :]}
    group = random.bytes(32)
    layout = lay_out(VALUES, BOUND, len(NAMES))
    uploads, answers, totals = {name: [] for name in NAMES}, [], []
    for number in range(SUMS):
        sum_ = Announcement("r", number, f"s{number}", (VALUES,), BOUND, b"", NAMES)
        cells = []
        for name in NAMES:
            keys = mask_keys(name, {o: pairs[frozenset((name, o))] for o in NAMES if o != name}, group, sum_)
            vector = dataset(kind, number) if name == "b" else np.arange(VALUES) % 50
            cells.append(mask(vector, layout, add=keys.add, subtract=keys.subtract))
            uploads[name].append(np.frombuffer(pack([cells[-1]], layout), np.uint8))
        answers.append(add_up(cells))
        total = unmask(answers[-1], layout, subtract=keys.group, shape=(VALUES,), bound=BOUND, members=len(NAMES))
        totals.append(total)
    return layout, uploads, answers, totals, pairs


def statistics(cells, bits):
    """Each cell's bits, averaged over the run, and the correlation of neighbours: what a distribution shows first."""
    values = np.concatenate(cells).astype(np.float64) / 2.0**bits
    ones = [np.mean([(int(c) >> bit) & 1 for c in np.concatenate(cells)[:20_000]]) for bit in range(bits)]
    neighbours = np.corrcoef(values[:-1], values[1:])[0, 1]
    return np.array([values.mean() - 0.5, values.std() - 12**-0.5, neighbours, *(np.array(ones) - 0.5)])


def as_cells(uploads, layout):
    from lepton_pipelines.federation.secure_sum import unpack

    return [unpack(upload.tobytes(), layout)[: layout.cells] for upload in uploads]


def test_the_uploads_do_not_tell_which_of_two_datasets_an_organisation_had():
    noise = 5 / np.sqrt(20_000)  # five standard errors of the weakest statistic
    plain = []
    for kind in (0, 1):
        layout, uploads, _, _, _ = run(kind, seed=kind)
        seen = statistics(as_cells(uploads["b"], layout), layout.bits)
        assert np.abs(seen).max() < noise, f"dataset {kind} shows"
        bare = [dataset(kind, number).astype(layout.dtype) for number in range(SUMS)]
        plain.append(statistics(bare, layout.bits))
    assert np.abs(plain[0] - plain[1]).max() > 0.1  # the same statistics tell the datasets themselves apart at once


def test_the_hub_cannot_recover_a_total_from_the_uploads_and_its_own_answer():
    layout, _, answers, totals, _ = run(1, seed=5)
    reduced = [answer[:VALUES].astype(np.int64) % (1 << layout.bits) for answer in answers]
    seen = np.corrcoef(np.concatenate(reduced), np.concatenate(totals))[0, 1]
    assert abs(seen) < 5 / np.sqrt(SUMS * VALUES)
    guessed = np.mean([np.mean(one == total) for one, total in zip(reduced, totals, strict=True)])
    assert guessed < 10 / (1 << 18)
    shown = statistics([answer[: layout.cells] % (1 << layout.bits) for answer in answers], layout.bits)
    assert np.abs(shown).max() < 5 / np.sqrt(20_000)


def test_all_but_two_members_and_the_hub_see_no_more_than_the_sum_of_the_two():
    layout, uploads, _, totals, pairs = run(1, seed=9)
    cells = as_cells(uploads["b"], layout)
    modulus = 1 << layout.bits
    stripped = []
    for number, upload in enumerate(cells):
        sum_ = Announcement("r", number, f"s{number}", (VALUES,), BOUND, b"", NAMES)
        rest = upload.copy()
        for other in ("c", "d"):  # two colluders take their own keystreams off b's upload
            keys = mask_keys(other, {"b": pairs[frozenset((other, "b"))]}, bytes(32), sum_)
            zero = mask(np.zeros(VALUES, np.int64), layout, add=keys.add, subtract=keys.subtract)
            rest = ((rest.astype(np.int64) + zero[: layout.cells].astype(np.int64)) % modulus).astype(layout.dtype)
        stripped.append(rest)
    assert np.abs(statistics(stripped, layout.bits)).max() < 5 / np.sqrt(20_000)  # a's keystream still covers it
    own = np.arange(VALUES) % 50
    left = [total - 2 * own for total in totals]
    np.testing.assert_array_equal(left[3], dataset(1, 3) + own)  # what the total itself says: a's and b's together


@pytest.mark.parametrize("words", [["tree", "level", "auc", "context"]])
def test_what_the_hub_keeps_names_no_sum_and_holds_no_total(hub_of_three, words):
    state = hashlib.sha256(b"model").digest()
    vector = np.arange(200) * 1_000_003

    def part(sums):
        for name in ("tree-3/level-0", "evaluation/auc"):
            sums.sum(name, vector, bound=1 << 40, context=state)
        sums.finish(b"the model's digest")

    hub_of_three.everywhere(part)
    files = [path for path in hub_of_three.hub.folder.iterdir() if path.name.startswith("hub.sqlite")]
    kept = b"".join(path.read_bytes() for path in files)
    for secret in (*(word.encode() for word in words), state, state.hex().encode(), b"the model's digest"):
        assert secret not in kept
    assert (3 * vector).tobytes()[8:64] not in kept and vector.tobytes()[8:64] not in kept
