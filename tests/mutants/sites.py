"""Where a change of the package could break a promise, and which tests run that place."""

import ast
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

Position = tuple[int, int]  # line from 1, column from 0

_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)
_READER = "tests/units/test_signatures.py::test_public_signatures_change_on_purpose_only"
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Module:
    """The syntax tree of one file of the package."""

    def __init__(self, root: Path, path: str) -> None:
        self.path = path
        self.source = (root / path).read_text()
        self.lines = self.source.splitlines()
        self.tree = ast.parse(self.source)

    @cached_property
    def _silent(self) -> list[ast.AST]:
        """What no test is asked to notice.

        Annotations, ``__all__``, ``__repr__`` and its like, ``zip(strict=)``, and numbers of 50 or more, which are
        moved by one: tolerances, counts of samples, sizes of chunks.
        """
        found: list[ast.AST] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found += [node] if node.name in ("__repr__", "extra_repr") else []
                found += [node.returns] if node.returns else []
            elif isinstance(node, ast.arg | ast.AnnAssign):
                found += [node.annotation] if node.annotation else []
            elif isinstance(node, ast.Constant):
                found += [node] if isinstance(node.value, int | float) and node.value >= 50 else []
            elif isinstance(node, ast.keyword):
                found += [node.value] if node.arg == "strict" else []
            elif isinstance(node, ast.ClassDef) and any(
                "autograd.Function" in ast.unparse(base) for base in node.bases
            ):
                # torch calls its methods on the class, where a decorator ``staticmethod`` changes nothing.
                for decorator in (each for method in node.body for each in getattr(method, "decorator_list", ())):
                    if ast.unparse(decorator) == "staticmethod":
                        decorator.col_offset -= 1  # from the @
                        found.append(decorator)
            elif isinstance(node, ast.Assign) and "__all__" in _names(node.targets):
                found.append(node)
        return found

    def is_silent(self, position: Position) -> bool:
        """Returns whether no test is asked to notice a change there."""
        return any(
            (node.lineno, node.col_offset) <= position < (node.end_lineno, node.end_col_offset) for node in self._silent
        )

    def statement(self, line: int) -> list[ast.AST]:
        """Returns the innermost statement of a line, after those that it is in."""
        path: list[ast.AST] = [self.tree]
        while True:
            inner = next((node for node in _blocks_of(path[-1]) if line in range(_first(node), _last(node) + 1)), None)
            if inner is None:
                return path[1:]
            path.append(inner)


def own_lines(node: ast.AST) -> range:
    """Returns the lines of a statement without those of the statements in it."""
    return range(_first(node), min([_first(inner) for inner in _blocks_of(node)], default=_last(node) + 1))


class Coverage:
    """Which tests run which line, as recorded, and how long each takes."""

    def __init__(self, modules: dict[str, Module], tests: dict[str, dict[int, set[str]]], seconds: dict[str, float]):
        self.modules, self.tests, self.seconds = modules, tests, seconds

    def covering(self, path: str, line: int) -> list[str]:
        """Returns the tests that run a line, those that are likely to fail soon first.

        What runs at import is run by no test. Of the head of a definition these are the tests that run its body, of an
        assignment those that run a line that has the name; failing that, those that run the class or the module. The
        one that reads all heads and their defaults comes to both.
        """
        *outer, node = self.modules[path].statement(line)
        found = self._run(path, own_lines(node))
        if not any(isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef) for block in outer):
            whole = isinstance(node, _DEFINITIONS)
            found |= self._run(path, _whole(node)) if whole else self._run_any(_names(ast.walk(node)))
            for block in (*reversed(outer), self.modules[path].tree):
                found = found or self._run(path, _whole(block))
            found |= {_READER} & self.seconds.keys()
        return self._in_order(found)

    def _run(self, path: str, lines: range) -> set[str]:
        return set().union(*(self.tests.get(path, {}).get(line, ()) for line in lines))

    def _run_any(self, names: set[str]) -> set[str]:
        """Returns the tests that run a statement that reads one of the names, in any module."""
        found: set[str] = set()
        for path, module in self.modules.items():
            for node in ast.walk(module.tree):
                if (
                    isinstance(node, ast.Name | ast.Attribute)
                    and isinstance(node.ctx, ast.Load)
                    and _name(node) in names
                ):
                    found |= self._run(path, own_lines(module.statement(node.lineno)[-1]))
        return found

    def _in_order(self, tests: set[str]) -> list[str]:
        """The fastest case of each test first, then the second of each: a mutant that any test kills dies early."""
        families: dict[str, list[str]] = {}
        for test in sorted(tests, key=lambda test: (self.seconds[test], test)):
            families.setdefault(test.partition("[")[0], []).append(test)
        turns = [(turn, self.seconds[test], test) for family in families.values() for turn, test in enumerate(family)]
        return [test for *_, test in sorted(turns)]


def _blocks_of(node: ast.AST) -> Iterator[ast.AST]:
    return (child for child in ast.iter_child_nodes(node) if isinstance(child, _BLOCKS))


def _first(node: ast.AST) -> int:
    if isinstance(node, ast.match_case):
        return node.pattern.lineno
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])


def _last(node: ast.AST) -> int:
    return node.body[-1].end_lineno if isinstance(node, ast.match_case) else node.end_lineno


def _whole(node: ast.AST) -> range:
    return (
        range(1, node.body[-1].end_lineno + 1) if isinstance(node, ast.Module) else range(_first(node), _last(node) + 1)
    )


def _name(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def _names(nodes: list[ast.expr] | Iterator[ast.AST]) -> set[str]:
    return {
        _name(node) for node in nodes if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
