"""Public names, their arguments and defaults change on purpose only, with a line in CHANGELOG.md.

``python -m tests.units.test_signatures`` accepts the present ones.
"""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pyro_hyperbolic as ph

FILE = Path(__file__).parents[1] / "data" / "signatures.txt"


def public_modules():
    """Modules with ``__all__`` at paths without a part that is private or a file of a package's own."""
    yield "pyro_hyperbolic", ph
    for found in pkgutil.walk_packages(ph.__path__, "pyro_hyperbolic."):
        module = importlib.import_module(found.name)
        if found.ispkg or found.name.count(".") == 1 or found.name.endswith((".constraints", ".strategies")):
            yield found.name, module


def signature(value):
    """Without annotations, which versions of Python print differently, and addresses."""
    found = inspect.signature(value)
    bare = [p.replace(annotation=p.empty) for p in found.parameters.values()]
    return re.sub(r" at 0x\w+", "", str(found.replace(parameters=bare, return_annotation=found.empty)))


def is_ours(method):
    return callable(method) and (getattr(method, "__module__", None) or "").startswith("pyro_hyperbolic")


def signatures():
    lines = set()
    for path, module in public_modules():
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                names = ["__init__", *(method for method in vars(value) if not method.startswith("_"))]
                methods = {method: getattr(value, method) for method in names}
                lines |= {f"{path}.{name}.{key}{signature(each)}" for key, each in methods.items() if is_ours(each)}
            elif callable(value):
                lines.add(f"{path}.{name}{signature(value)}")
    return sorted(lines)


def test_public_signatures_change_on_purpose_only():
    assert signatures() == FILE.read_text().splitlines()


if __name__ == "__main__":
    FILE.write_text("\n".join(signatures()) + "\n")
