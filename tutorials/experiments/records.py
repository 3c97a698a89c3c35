"""What experiments leave behind: one JSON file for each finished piece of work, so that a second start goes on."""

import json
import os


def missing(folder, jobs):
    """Returns those of ``{name: arguments}`` of which there is no record yet."""
    return {name: job for name, job in jobs.items() if not path_of(folder, name).exists()}


def write(folder, name, record):
    """Writes a record, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = path_of(folder, name).with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(record, indent=1))
    part.replace(path_of(folder, name))


def read(folder):
    """Returns the records in a folder, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def path_of(folder, name):
    """Returns where a record of that name is."""
    return folder / f"{name.replace(', ', '-').replace(' ', '-')}.json"
