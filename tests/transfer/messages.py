"""What was logged, each record once."""

import pytest


def count_told(caplog: pytest.LogCaptureFixture, text: str) -> int:
    """Return how many records hold a text; pytest 9.2 may list one twice."""
    records = {id(record): record for record in caplog.records}.values()
    return sum(text in record.getMessage() for record in records)
