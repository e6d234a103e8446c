from __future__ import annotations

import dataclasses

from posterior_bench.reference.acceptance import DIFFERENCE, EFFECTIVE_SIZE, Check, accepted
from posterior_bench.reporting.reference_table import reference_table
from posterior_bench.reporting.summary import TaskSummary


def record(*checks: Check) -> dict:
    return {
        "accepted": accepted(checks),
        "acceptance": [check.record() for check in checks],
        "how": "importance sampling",
        "measurements": 5,
        "draws": 10_000,
    }


def test_a_reference_that_is_not_accepted_says_so(summaries: tuple[TaskSummary, ...]) -> None:
    assert reference_table(summaries[0]) is None, "a simulator's own reference has no record"
    checks = (
        Check(EFFECTIVE_SIZE, "failed", 3.5, (1, 4)),
        Check(DIFFERENCE, "missing", note="route two was left out"),
    )
    info = dataclasses.replace(summaries[0].info, engine=record(*checks))
    table = reference_table(dataclasses.replace(summaries[0], info=info))
    assert table is not None
    assert "NOT accepted" in table.caption
    first, second = table.lines
    assert [cell.text for cell in first.cells] == [EFFECTIVE_SIZE.name, "at least 10.000", "3.500", "failed"]
    assert first.cells[3].detail == "2 measurements"
    assert first.cells[3].tone == second.cells[3].tone == "bad"
    assert second.cells[2].text == "–"
    assert "10,000 draws for each of 5" in table.notes[0]
