"""Batches that are cut, mixed and fetched ahead, and the pieces that a row is scored in."""

from pathlib import Path

import numpy as np
import pytest
import torch

import crops
from batches import Batches, fetched, training_batches, with_partners
from crops import Crops
from data import Dataset


@pytest.fixture(scope="module")
def dataset(prepared_demo):
    return Dataset(Path(prepared_demo[prepared_demo.index("--data.dir") + 1]))


def test_a_random_piece_lies_in_its_row_hangs_on_the_epoch_and_not_on_the_batch(dataset):
    rows = np.arange(12)
    whole, pieces = Batches(dataset)[rows].signal, Batches(dataset, seed=1, epoch=2, crop=250)
    together, alone, later = pieces[rows], pieces[rows[5:6]], Batches(dataset, seed=1, epoch=3, crop=250)[rows]
    assert together.signal.shape == (12, 12, 250) and together.signal.dtype == np.float16
    np.testing.assert_array_equal(alone.signal[0], together.signal[5])
    assert (together.valid == [0, 250]).all()
    places = []
    for row, piece in zip(whole, together.signal, strict=True):
        places += [s for s in range(row.shape[1] - 249) if np.array_equal(row[:, s : s + 250], piece)]
    assert len(places) == 12 and len(set(places)) > 6
    assert not np.array_equal(later.signal, together.signal)


def test_places_of_pieces_are_even_and_reach_both_ends(dataset):
    chance = np.concatenate([Batches(dataset, seed=1, epoch=e, crop=250)._places for e in range(40)])
    places = np.floor(chance * 751)
    assert places.min() == 0 and places.max() == 750 and abs(places.mean() - 375) < 10


def test_a_piece_stays_within_what_is_valid(dataset, monkeypatch):
    valid = dataset.valid.copy()
    valid[0], valid[1] = [100, 420], [900, 1000]
    monkeypatch.setattr(dataset, "valid", valid)
    whole = Batches(dataset)[np.array([0, 1])].signal
    for epoch in range(20):
        batch = Batches(dataset, seed=0, epoch=epoch, crop=300)[np.array([0, 1])]
        assert batch.valid[0].tolist() == [0, 300]  # between 100 and 420
        first, last = batch.valid[1]
        assert last - first == 100  # all of what is valid
        np.testing.assert_array_equal(batch.signal[1][:, first:last], whole[1][:, 900:1000])


def test_mixed_rows_are_a_mixture_of_two_that_does_not_depend_on_the_batch(dataset):
    order = np.arange(20)
    pairs = with_partners(order, 8)
    assert pairs.shape == (2, 16)  # the rest fills no batch
    np.testing.assert_array_equal(pairs[1], [7, 0, 1, 2, 3, 4, 5, 6, 15, 8, 9, 10, 11, 12, 13, 14])
    mixing, plain = Batches(dataset, seed=0, epoch=1, mixup=0.4), Batches(dataset)
    together, alone = mixing[pairs[:, :8]], mixing[pairs[:, 3:4]]
    np.testing.assert_array_equal(alone.signal[0], together.signal[3])
    share = mixing._shares[pairs[0, :8]]
    assert (share >= 0).all() and (share <= 0.5).all() and share.std() > 0.05
    one, other = (plain[rows].signal.astype(np.float32) for rows in pairs[:, :8])
    expected = one * (1 - share)[:, None, None] + other * share[:, None, None]
    np.testing.assert_allclose(together.signal, expected, atol=1e-5)
    np.testing.assert_allclose(
        together.labels,
        dataset.labels[pairs[0, :8]] * (1 - share[:, None]) + dataset.labels[pairs[1, :8]] * share[:, None],
    )


def test_processes_share_mixed_rows_as_they_share_others():
    pairs = with_partners(np.arange(32), 16)
    shares = [training_batches(pairs, 16, 2, rank, 2) for rank in range(2)]
    assert all(len(mine) == 4 and mine[0].shape == (2, 4) for mine in shares)
    for step in range(2):
        of_step = np.concatenate([mine[2 * step + k] for mine in shares for k in range(2)], axis=1)
        np.testing.assert_array_equal(of_step, pairs[:, 16 * step : 16 * step + 16])


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_that_are_fetched_ahead_come_in_order(dataset, threads):
    requests = [np.arange(k, k + 3) for k in range(0, 60, 3)]
    got = list(fetched(Batches(dataset), requests, threads))
    np.testing.assert_array_equal(np.concatenate([batch.rows for batch in got]), np.arange(60))
    np.testing.assert_array_equal(got[7].signal, Batches(dataset)[requests[7]].signal)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_of_a_thread_reaches_the_caller_and_leaving_early_ends_the_threads(threads):
    def fetch(rows):
        if rows[0] == 4:
            raise ValueError("row 4")
        return rows

    with pytest.raises(ValueError, match="row 4"):
        list(fetched(fetch, [np.array([k]) for k in range(8)], threads))
    ahead = fetched(fetch, [np.array([k]) for k in range(4)], threads)
    next(ahead)
    ahead.close()


# ----------------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    ("n_samples", "asked", "expected"),
    [
        (1000, (250, 250), [0, 250, 500, 750]),
        (1000, (250, 125), [0, 125, 250, 375, 500, 625, 750]),
        (1000, (300, 300), [0, 300, 600, 700]),
        (1000, (1000, 1), [0]),
        (200, (250, 250), [0]),
    ],
)
def test_pieces_cover_the_row_and_the_last_ends_with_it(n_samples, asked, expected):
    assert crops.starts(n_samples, Crops(*asked, "mean")) == expected


def test_pieces_are_cut_with_their_valid_ranges():
    x = torch.arange(20.0).reshape(1, 2, 10)
    pieces, inside = crops.cut(x, torch.tensor([[0, 7]]), Crops(4, 4, "mean"))
    np.testing.assert_array_equal(pieces[:, 0], [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]])
    assert inside.tolist() == [[0, 4], [0, 3], [0, 1]]
    short, inside = crops.cut(x, torch.tensor([[0, 10]]), Crops(16, 16, "mean"))
    assert torch.equal(short, x) and inside.tolist() == [[0, 10]]


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_pooled_logits_give_the_pooled_scores(task, rng):
    logits = torch.from_numpy(4 * rng.normal(size=(5, 3, 4))).float()
    inside = torch.tensor([[9, 9, 9], [9, 9, 3], [9, 9, 0], [0, 0, 0], [5, 0, 0]])
    of_scores = (lambda z: z.softmax(-1)) if task == "multiclass" else torch.sigmoid
    share = torch.tensor([[1, 1, 1], [9, 9, 3], [1, 1, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.float32)
    expected = (of_scores(logits) * share[..., None]).sum(1) / share.sum(1, keepdim=True)
    torch.testing.assert_close(of_scores(crops.pooled(logits, inside, task, "mean")), expected, rtol=1e-4, atol=1e-6)

    best = (of_scores(logits) * (share > 0)[..., None]).amax(1)
    best = best / best.sum(1, keepdim=True) if task == "multiclass" else best
    torch.testing.assert_close(of_scores(crops.pooled(logits, inside, task, "max")), best, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_pooling_of_extreme_logits_is_finite(pool):
    logits = torch.tensor([[[90.0, -90.0], [95.0, -200.0]]])
    for task in ("multiclass", "multilabel"):
        assert crops.pooled(logits, torch.ones(1, 2, dtype=torch.int64), task, pool).isfinite().all()
