"""A pytest plugin (``-p tests.mutants.durations``): writes the seconds of each test to the file ``$DURATIONS``."""

import json
import os
from collections import Counter
from pathlib import Path

_seconds: Counter[str] = Counter()


def pytest_runtest_logreport(report):
    _seconds[report.nodeid] += report.duration


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):  # with xdist the controller hears of all tests
        Path(os.environ["DURATIONS"]).write_text(json.dumps(_seconds))
