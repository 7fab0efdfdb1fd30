"""Bringing the rows of a prompt together."""

import torch

from longact_trl.packing.layout import regroup


def test_regrouping_keeps_rows_in_their_window():
    generator = torch.Generator().manual_seed(0)
    numbers = torch.arange(24).remainder(3)[torch.randperm(24, generator=generator)]
    batches = [
        {"prompt_ids": part[:, None] + 5, "prompt_mask": torch.ones(4, 1), "row": rows, "scalar": torch.tensor(7)}
        for part, rows in zip(numbers.split(4), torch.arange(24).split(4), strict=True)
    ]
    for window in (1, 2, 3, 6):
        found = regroup(batches, window)
        assert len(found) == 6 and all(batch["scalar"] == 7 for batch in found)
        for start in range(0, 6, window):
            rows = torch.cat([batch["row"] for batch in found[start : start + window]])
            assert sorted(rows.tolist()) == list(range(4 * start, 4 * (start + window)))
            together = torch.cat([batch["prompt_ids"] for batch in found[start : start + window]]).flatten() - 5
            assert torch.equal(together, numbers[rows])
            assert len(together.unique_consecutive()) == len(together.unique())
