"""A pytest plugin (``-p tests.mutants.forks``): tries mutants of functions, each in a fork.

Libraries, the package and the tests are imported once; a fork then replaces the code of the functions that a mutant
changes, which is ten times as fast as a new process for each. What runs at import (constants, defaults, decorators,
heads of classes) cannot be changed so; ``tests.mutants`` starts a process for those.

Reads requests from the file ``$MUTANTS``, one in a line, and appends outcomes to ``$OUTCOMES``.
"""

import gc
import inspect
import json
import os
import signal
import time
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from _pytest.runner import runtestprotocol
from _pytest.warnings import catch_warnings_for_item

_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
SURVIVED, KILLED, AT_IMPORT, UNCLEAR = range(4)


def pytest_runtestloop(session):
    items = {item.nodeid: item for item in session.items}
    requests = [json.loads(line) for line in Path(os.environ["MUTANTS"]).read_text().splitlines()]
    functions = [each for each in gc.get_objects() if type(each) is FunctionType]
    for request in requests:
        result = _in_a_fork(request, [items[test] for test in request["tests"]], functions)
        record(Path(os.environ["OUTCOMES"]), request, result)
    return True


def record(log: Path, request: dict[str, Any], result: dict[str, Any]) -> None:
    """Appends the outcome of a mutant to a log, and prints it."""
    result = {key: request[key] for key in ("id", "module", "line", "before", "after", "operator")} | result
    with log.open("a") as file:
        print(json.dumps(result), file=file)
    print(f"{result['outcome']:9} {result['seconds']:5.1f} s  {result['id']}", flush=True)


def _in_a_fork(request, tests, functions):
    if not tests:
        return {"outcome": "uncovered", "tests": 0, "seconds": 0.0, "by": ""}
    start, (reader, writer) = time.monotonic(), os.pipe()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        try:
            status = _try(request, tests, functions, writer)
        except BaseException as error:  # no exception may reach the code of the process that forked
            os.write(writer, repr(error).encode())
            status = UNCLEAR
        os._exit(status)
    os.close(writer)
    limit = request["limit"]
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < start + limit:
        time.sleep(0.01)
    if done[0]:
        status = os.waitstatus_to_exitcode(done[1])
        os.set_blocking(reader, False)  # processes that a test started may hold the other end
        by = os.read(reader, 1000).decode() if status in (KILLED, UNCLEAR) else ""
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        status, by = KILLED, f"timeout after {limit:.0f} s"
    os.close(reader)
    outcome = {SURVIVED: "survived", AT_IMPORT: "at import", UNCLEAR: "unclear"}.get(status, "killed")
    return {"outcome": outcome, "tests": len(tests), "seconds": round(time.monotonic() - start, 1), "by": by}


def _try(request, tests, functions, writer):
    """Returns how it went, as an exit status; writes the name of the test that fails."""
    file = Path(request["module"]).resolve()
    try:
        if not replace(functions, str(file), file.read_text(), request["code"]):
            return AT_IMPORT
    except ValueError:  # a mutant with other free variables
        return AT_IMPORT
    for test, following in zip(tests, [*tests[1:], None], strict=True):
        # A test's own filters of warnings are set by a hook around the protocol.
        with catch_warnings_for_item(test.config, test.ihook, "runtest", test):
            reports = runtestprotocol(test, log=False, nextitem=following)
        if any(report.failed for report in reports):
            os.write(writer, test.nodeid.encode()[:1000])
            return KILLED
    return SURVIVED


def replace(functions: list[FunctionType], file: str, before: str, after: str) -> bool:
    """Replaces the code of the functions of an imported file that differ; returns False if other code differs."""
    pairs: list[tuple[CodeType, CodeType]] = []
    if not _differing(compile(before, file, "exec"), compile(after, file, "exec"), pairs):
        return False
    new = dict(pairs)
    for function in functions:
        if function.__code__.co_filename == file:
            function.__code__ = new.get(function.__code__, function.__code__)
    return True


def _differing(before: CodeType, after: CodeType, pairs: list[tuple[CodeType, CodeType]]) -> bool:
    """Appends the pairs of functions that differ; returns whether nothing else does."""
    if before == after:
        return True
    inner = [[const for const in code.co_consts if isinstance(const, CodeType)] for code in (before, after)]
    alike = len(inner[0]) == len(inner[1])
    for codes in zip(*inner, strict=False):
        alike = _differing(*codes, pairs) and alike
    if before.co_name in _COMPREHENSIONS:  # those of functions are in the code that is made when these run
        return False
    if before.co_flags & inspect.CO_NEWLOCALS:  # a function, whose inner ones are made when it runs
        pairs.append((before, after))
        return True
    return alike and _own(before) == _own(after)


def _own(code: CodeType) -> tuple[object, ...]:
    consts = tuple(None if isinstance(const, CodeType) else (type(const), const) for const in code.co_consts)
    return code.co_code, code.co_names, code.co_varnames, consts
