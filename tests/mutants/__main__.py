"""Mutation testing: changes the package by one small step, in a copy, and runs the tests that run the changed line.

    make mutants ARGS="--seed 3 --number 200"

cosmic-ray makes the mutants. A site (a place and a kind of change) is drawn with equal chance, and one of its mutants:
the many ways to replace one ``+`` would drown the rest. What is not Python, and what tests/mutants/equivalent.toml
knows to change nothing, is not drawn. The code is that of HEAD; results are kept, and a second start goes on.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import coverage
import toml
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests.mutants.forks import record
from tests.mutants.sites import Coverage, Module

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "mutants"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
# Pictures and files of data; names that are only passed on.
LEFT_OUT = ("pyro_hyperbolic/viz/", "pyro_hyperbolic/datasets/")
# Tests of the clock, of the tutorials, of what is compiled or in other processes, and one as long as all the others.
TESTS_LEFT_OUT = ("docs", "pyro/test_inference.py", "units/test_speed.py", "units/test_compile.py")
# Within each kind; across them a mutant mostly raises a TypeError, or is the same (``is`` and ``==`` of None).
KINDS = [
    {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"},
    {"BitOr", "BitAnd", "BitXor"},
    {"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE"},
    {"Is", "IsNot"},
]


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--number", type=int, default=200, help="of mutants")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--again", type=Path, help="a report; tries its survivors instead of a fresh sample")
    options = parser.parse_args(arguments)

    commit = _output("git", "rev-parse", "--short=12", "HEAD", cwd=ROOT)
    home = RESULTS / commit
    home.mkdir(parents=True, exist_ok=True)
    copies = _copies(home, options.jobs)
    modules = {path: Module(copies[0], path) for path in _files(copies[0])}
    coverage_of = Coverage(modules, *_recorded(home, copies[0], modules))
    if options.again:
        report = json.loads(options.again.read_text())["mutants"]
        sample = list(_mutants(modules, wanted={_key(result) for result in report if result["outcome"] != "killed"}))
    else:
        sample = list(_mutants(modules, options.seed, options.number))
    print(f"{len(sample)} mutants of {commit}", flush=True)
    results = _run(sample, copies, coverage_of, home / "outcomes.jsonl")
    name = f"again-{options.again.stem}" if options.again else f"seed-{options.seed}-{options.number}"
    return _report(results, RESULTS / f"{commit}-{name}.json")


def _output(*command, **kwargs):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **kwargs).stdout.strip()


def _files(root):
    paths = (str(path.relative_to(root)) for path in sorted((root / "pyro_hyperbolic").rglob("*.py")))
    return [path for path in paths if not path.startswith(LEFT_OUT)]


# ---- the copies, and what is recorded of the tests in the first ----


def _copies(home, number):
    """Returns clones of HEAD, as they were made: a stopped run leaves a mutant behind."""
    copies = [home / f"copy-{i}" for i in range(number)]
    for copy in copies:
        if not (copy / ".git").exists():
            _output("git", "clone", "--quiet", "--local", "--no-checkout", str(ROOT), str(copy))
        _output("git", "checkout", "--quiet", "--force", "--detach", home.name, cwd=copy)
    return copies


def _recorded(home, copy, modules):
    """Returns the tests that run each line of each module, and their seconds; runs the suite if that is new."""
    data, seconds = home / "coverage", home / "seconds.json"
    environment = _environment(copy) | {"COVERAGE_FILE": str(home / "recording"), "DURATIONS": str(seconds)}
    if not data.exists():
        where = _output(
            sys.executable, "-c", "import pyro_hyperbolic as p; print(p.__file__)", cwd=copy, env=environment
        )
        assert where.startswith(str(copy)), f"{where} is imported, not {copy}: its mutants would all survive"
        print("recording which test runs which line, some minutes", flush=True)
        left_out = [f"--ignore=tests/{name}" for name in TESTS_LEFT_OUT]
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "tests.mutants.durations", *left_out]
        command += ["--numprocesses=2", "--dist=worksteal", "--cov", "--cov-context=test", "--cov-report="]
        # Contexts need the tracer in C; not all versions of coverage choose it by themselves.
        subprocess.run(command, cwd=copy, env=environment | {"COVERAGE_CORE": "ctrace"}, check=True)
        (home / "recording").rename(data)
    contexts = coverage.CoverageData(str(data))
    contexts.read()
    tests = {
        path: {
            line: {context.rpartition("|")[0] for context in found if context}
            for line, found in contexts.contexts_by_lineno(str(copy / path)).items()
        }
        for path in modules
    }
    return tests, json.loads(seconds.read_text())


def _environment(copy):
    # PYTHONPATH: the copy, not what is installed. CI: hypothesis draws the same examples each time and keeps none.
    return os.environ | {"PYTHONPATH": str(copy), "CI": "true", "OMP_NUM_THREADS": "1"}


# ---- the mutants ----


def _operators():
    for name in operator_names():
        operator = get_operator(name)
        change = name.split("/")[1].split("_")
        swaps = len(change) == 3 and change[0] in ("ReplaceBinaryOperator", "ReplaceComparisonOperator")
        if not operator.arguments() and (not swaps or any(set(change[1:]) <= kind for kind in KINDS)):
            yield change[0], name, operator()


def _mutants(modules, seed=0, number=None, wanted=None):
    """Yields a mutant of each of a sample of sites, drawn without replacement; or those that are wanted."""
    sites, lines = {}, {(path, before) for path, before, _ in wanted or ()}
    for path, module in modules.items():
        nodes = list(ast_nodes(get_ast(module.source)))
        for kind, name, operator in _operators():
            positions = (start for node in nodes for start, _ in operator.mutation_positions(node))
            for occurrence, start in enumerate(positions):
                if not module.is_silent(start) and (
                    wanted is None or (path, module.lines[start[0] - 1].strip()) in lines
                ):
                    sites.setdefault((path, start, kind), []).append((name, occurrence))
    rng, known = random.Random(seed), {_key(mutant) for mutant in toml.loads(EQUIVALENT.read_text()).get("mutant", [])}
    order = sorted(sites)
    rng.shuffle(order)
    for path, start, kind in order:
        choices = sites[path, start, kind]
        rng.shuffle(choices)
        for name, occurrence in choices:
            mutant = _mutant(modules[path], start, name, occurrence)
            if mutant is None or _key(mutant) in known or (wanted is not None and _key(mutant) not in wanted):
                continue
            yield mutant
            if wanted is None:
                number -= 1
                break
        if number == 0:
            return


def _mutant(module, start, name, occurrence):
    code = mutate_code(module.source, get_operator(name)(), occurrence)
    try:
        compile(code, module.path, "exec", dont_inherit=True)
    except SyntaxError:
        return None
    lines = code.splitlines()
    head = next(i for i, (a, b) in enumerate(zip(module.lines, lines, strict=False)) if a != b)
    before = module.lines[head].strip()
    after = lines[head].strip() if len(lines) == len(module.lines) else ""  # a decorator is gone
    return {"module": module.path, "line": start[0], "before": before, "after": after, "operator": name, "code": code}


def _key(mutant):
    return mutant["module"], mutant["before"], mutant["after"]


# ---- running them ----


def _run(sample, copies, coverage_of, log):
    """Returns the outcome of each mutant; those in the log are not run again."""
    requests = []
    for mutant in sample:
        tests = coverage_of.covering(mutant["module"], mutant["line"])
        identity = f"{mutant['module']}:{mutant['line']} {mutant['before']} -> {mutant['after']}"
        # At a mutant's own speed: many are slow, few loop for ever.
        limit = 30 + 3 * sum(coverage_of.seconds[test] for test in tests)
        requests.append(mutant | {"id": identity, "tests": tests, "limit": limit})
    rest = [request for request in requests if request["id"] not in _known(log)]

    def share(i):
        mine = rest[i :: len(copies)]
        _try_in_forks(mine, copies[i], log)
        known = _known(log)
        for request in mine:
            if request["id"] not in known:
                record(log, request, _try_in_a_process(request, copies[i]))

    with ThreadPoolExecutor(len(copies)) as pool:
        list(pool.map(share, range(len(copies))))
    known = _known(log)
    return [known[request["id"]] for request in requests]


def _known(log):
    results = map(json.loads, log.read_text().splitlines() if log.exists() else ())
    return {result["id"]: result for result in results if result["outcome"] != "at import"}


def _try_in_forks(requests, copy, log):
    """Lets the plugin ``tests.mutants.forks`` append to the log what the tests say of each mutant."""
    if requests:
        file = copy.with_suffix(".jsonl")
        file.write_text("".join(json.dumps(request) + "\n" for request in requests))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.mutants.forks", "-p", "no:cacheprovider"]
        command += [f"--ignore=tests/{name}" for name in TESTS_LEFT_OUT]
        environment = _environment(copy) | {"MUTANTS": str(file), "OUTCOMES": str(log)}
        subprocess.run(command, cwd=copy, env=environment, check=True)


def _try_in_a_process(request, copy):
    """Returns what the tests, one after the other until one fails, say of a mutant that changes what runs at import."""
    file, wanted, start = copy / request["module"], copy.with_suffix(".tests"), time.monotonic()
    wanted.write_text("\n".join(request["tests"]))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", f"@{wanted}"]
    code = file.read_text()
    try:
        file.write_text(request["code"])
        # Bytecode is known by the second and the size of its source: too coarse for mutants.
        environment = _environment(copy) | {"PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            timeout=request["limit"],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        by = re.findall(r"^(?:FAILED|ERROR) (\S+)|^(ImportError while loading conftest)", done.stdout, re.MULTILINE)
        outcome = "survived" if done.returncode == 0 else "killed" if by else "unclear"
        by = "".join(by[0]) if by else done.stdout[-500:] if outcome == "unclear" else ""
    except subprocess.TimeoutExpired:
        outcome, by = "killed", f"timeout after {request['limit']:.0f} s"
    finally:
        file.write_text(code)
    return {
        "outcome": outcome,
        "tests": len(request["tests"]),
        "seconds": round(time.monotonic() - start, 1),
        "by": by,
    }


def _report(results, file):
    """Prints the survivors and writes the report; returns whether any mutant is alive."""
    alive = [result for result in results if result["outcome"] != "killed"]
    for result in alive:
        print(f"\n{result['module']}:{result['line']}  {result['outcome']}, {result['tests']} tests run this line")
        print(f"-   {result['before']}\n+   {result['after']}")
        if result["outcome"] == "unclear":
            print(result["by"])
    killed = len(results) - len(alive)
    share = killed / len(results) if results else 1.0
    file.write_text(json.dumps({"killed": killed, "of": len(results), "mutants": results}, indent=1))
    print(f"\n{killed} of {len(results)} mutants killed ({share:.1%}); {file.relative_to(ROOT)}")
    return 0 if share >= 0.97 else 1


if __name__ == "__main__":
    sys.exit(main())
