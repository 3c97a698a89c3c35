"""The names of torch, pyro and geoopt that the package uses, and those that the lowest versions have.

.venv-floors/bin/python -m tests.docs.names_at_floors     # writes data/names_at_floors.json, after a floor has moved
"""

import ast
import importlib
import importlib.metadata
import json
from pathlib import Path

import torch

FILES = sorted((Path(__file__).parents[2] / "pyro_hyperbolic").rglob("*.py"))
RECORD = Path(__file__).parents[1] / "data" / "names_at_floors.json"
LIBRARIES = ("torch", "pyro", "geoopt")


def names_used(file, modules):
    """Yields (module, name) of what a file takes from ``modules``; of tensors, what torch.Tensor has today."""
    tree, local = ast.parse(file.read_text()), {library: library for library in LIBRARIES}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in LIBRARIES:
            for alias in node.names:
                yield node.module, alias.name
                local[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            local |= {alias.asname: alias.name for alias in node.names if alias.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            root, dot, rest = owner.partition(".")
            owner = local.get(root, root) + dot + rest
            if owner in modules:
                yield owner, node.attr
            elif hasattr(torch.Tensor, node.attr):
                yield "torch.Tensor", node.attr


def names_at_present():
    """Returns the public names of the libraries' modules that the package mentions, and of torch.Tensor."""
    found, modules = {"torch.Tensor": torch.Tensor}, set(LIBRARIES)
    while modules:
        name = modules.pop()
        try:
            found[name] = importlib.import_module(name)
        except ImportError:  # a class or a function
            continue
        used = {(owner, attribute) for file in FILES for owner, attribute in names_used(file, found)}
        modules |= {o for o, _ in used} | {f"{o}.{a}" for o, a in used if o != "torch.Tensor"}
        modules -= found.keys()
    return {name: sorted(n for n in dir(module) if n[0] != "_") for name, module in sorted(found.items())}


if __name__ == "__main__":
    versions = {name: importlib.metadata.version(name).split("+")[0] for name in ("torch", "pyro-ppl", "geoopt")}
    lines = [f"{json.dumps(name)}: {json.dumps(' '.join(names))}" for name, names in names_at_present().items()]
    RECORD.write_text("{\n" + ",\n".join([f'"versions": {json.dumps(versions)}', *lines]) + "\n}\n")
