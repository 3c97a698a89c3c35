"""What `make mutants` replaces in a fork: all that functions of the file do, and nothing that runs at import."""

import json
from types import FunctionType

import pytest

from tests.mutants import forks
from tests.mutants.forks import replace

pytest_plugins = "pytester"
SOURCE = """\
import functools

LIMIT = 1
SQUARES = [i**2 for i in range(12)]


def constant(x=2):
    return 3


def outer():
    class Local:
        value = 4

    return Local.value, (lambda: 5)()


class Class:
    value = 6

    @functools.cache
    def method(self):
        return 7

    @property
    def name(self):
        return 8


def maker():
    return lambda: 9


made = maker()
"""
CALLS = {
    "3": lambda module: module["constant"](),
    "4": lambda module: module["outer"]()[0],
    "5": lambda module: module["outer"]()[1],
    "7": lambda module: module["Class"]().method(),
    "8": lambda module: module["Class"]().name,
    "9": lambda module: module["made"](),
}


def _imported():
    module: dict[str, object] = {"__name__": "module"}
    exec(compile(SOURCE, "module.py", "exec"), module)
    functions = [value for value in module.values() if isinstance(value, FunctionType)]
    methods = vars(module["Class"])
    return module, [*functions, methods["method"].__wrapped__, methods["name"].fget]


@pytest.mark.parametrize("number", CALLS)
def test_code_of_functions_is_replaced(number):
    module, functions = _imported()
    assert replace(functions, "module.py", SOURCE, SOURCE.replace(number, "10", 1))
    for each, call in CALLS.items():
        assert call(module) == (10 if each == number else int(each)), each


@pytest.mark.parametrize("number", ["LIMIT = 1", "range(12", "x=2", "value = 6"])
def test_what_runs_at_import_is_refused(number):
    _, functions = _imported()
    assert not replace(functions, "module.py", SOURCE, SOURCE.replace(number, number[:-1] + "11", 1))


def test_other_files_are_left_alone():
    module, functions = _imported()
    assert replace(functions, "other.py", SOURCE, SOURCE.replace("return 3", "return 10"))
    assert module["constant"]() == 3


def test_filters_of_warnings_hold_in_a_fork(pytester, monkeypatch):
    """Without them a test fails whatever is changed, so that every mutant seems killed."""
    code = """
        import warnings, pytest
        @pytest.mark.filterwarnings("ignore")
        def test():
            warnings.warn("known")
    """
    pytester.makeini("[pytest]\nfilterwarnings = error")
    file = pytester.makepyfile(code)
    request = dict.fromkeys(("id", "line", "before", "after", "operator"), "")
    request |= {"module": file.name, "code": file.read_text(), "tests": [f"{file.name}::test"], "limit": 60}
    monkeypatch.setenv("MUTANTS", str(pytester.makefile(".jsonl", json.dumps(request))))
    monkeypatch.setenv("OUTCOMES", str(pytester.path / "outcomes"))
    pytester.inline_run(plugins=[forks])
    assert json.loads((pytester.path / "outcomes").read_text())["outcome"] == "survived"
