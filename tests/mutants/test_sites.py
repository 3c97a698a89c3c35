"""What `make mutants` draws and which tests it asks: a place that no test is asked about would count as a survivor."""

from pathlib import Path

import pytest

from tests.mutants.sites import Coverage, Module

SOURCE = '''\
"""A module."""
__all__ = ["f", "C"]
LIMIT = 3 + 1


def f(x: int | None = 1 + 1) -> int | str:
    """Returns a number."""
    if x is None:
        return LIMIT
    return g(
        x,
        2 * x,
    )


class C:
    flag = not True

    def method(self):
        return 1

    def __repr__(self):
        return 2 * "C"


class Square(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return sum(a * b for a, b in zip(x, x, strict=True))


CHUNK, PAIRS = 4096, 49
'''
TESTS = {"a.py": {8: {"none"}, 9: {"none"}, 10: {"slow[1]", "slow[2]", "quick"}, 20: {"method"}}}
SECONDS = {"none": 1.0, "slow[1]": 2.0, "slow[2]": 3.0, "quick": 0.5, "method": 1.0}


@pytest.fixture
def module(tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    return Module(tmp_path, "a.py")


def place(text, offset=0):
    line = next(i for i, line in enumerate(SOURCE.splitlines(), 1) if text in line)
    return line, SOURCE.splitlines()[line - 1].index(text) + offset


def test_annotations_and_names_are_silent(module):
    for text in ('["f", "C"]', "int | None", "int | str", '2 * "C"', "@staticmethod", "True))", "4096"):
        assert module.is_silent(place(text)), text
    for text in ("3 + 1", "1 + 1", "2 * x", "not True", "a * b", "49"):
        assert not module.is_silent(place(text)), text


@pytest.mark.parametrize(
    ("text", "tests"),
    [
        ("is None", ["none"]),
        ("2 * x", ["quick", "slow[1]", "slow[2]"]),  # in a statement that starts two lines above
        ("3 + 1", ["none"]),  # read where `none` is
        ("1 + 1", ["quick", "none", "slow[1]", "slow[2]"]),  # a default: of the body
        ("not True", ["method"]),  # read nowhere: of the class
        ('2 * "C"', []),  # in a function that no test calls
    ],
)
def test_the_tests_of_a_line(module, text, tests):
    assert Coverage({"a.py": module}, TESTS, SECONDS).covering("a.py", place(text)[0]) == tests


def test_equivalent_mutants_are_of_lines_that_exist_and_each_is_listed_once():
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    root = Path(__file__).resolve().parents[2]
    mutants = tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text())["mutant"]
    for mutant in mutants:
        lines = {line.strip() for line in (root / mutant["module"]).read_text().splitlines()}
        assert mutant["before"] in lines, mutant
        assert mutant["reason"], mutant
    assert len({(mutant["module"], mutant["before"], mutant["after"]) for mutant in mutants}) == len(mutants)
