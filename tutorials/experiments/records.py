"""What experiments leave behind: one JSON file for each finished piece of work, so that a second start goes on."""

import json
import os
import reprlib


def missing(folder, jobs):
    """Returns those of ``{name: fields}`` of which there is no record yet.

    Raises ValueError if there is a file of that name, but with other fields, or that is no record.
    """
    return {name: fields for name, fields in jobs.items() if not _is_done(path_of(folder, name), fields)}


def _is_done(path, fields):
    if not path.exists():
        return False
    record = _load(path, fields)
    for field, value in fields.items():
        if record[field] != value:
            raise ValueError(
                f"{path} is the record of a run with {field} = {record[field]}, not {value}; delete it, or write to "
                f"another folder by --out."
            )
    return True


def write(folder, name, record):
    """Writes a record, whole or not at all."""
    text = json.dumps(record, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    part = path_of(folder, name).with_suffix(f".{os.getpid()}")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name and nothing in it
        part.replace(path_of(folder, name))
    finally:
        part.unlink(missing_ok=True)


def read(folder, fields=()):
    """Returns the records in a folder, by name; raises ValueError for one that is not whole, or lacks a field."""
    return {path.stem: _load(path, fields) for path in sorted(folder.glob("*.json"))}


def _load(path, fields):
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is no record, but empty, cut or not JSON ({error}); delete it and run again."
        ) from error
    lacks = [field for field in fields if field not in record] if isinstance(record, dict) else ["all fields"]
    if lacks:
        raise ValueError(
            f"{path} holds {reprlib.repr(record)}, no record of this experiment: it lacks {', '.join(lacks)}; delete "
            f"it or move it away."
        )
    return record


def path_of(folder, name):
    """Returns where a record of that name is."""
    return folder / f"{name.replace(', ', '-').replace(' ', '-')}.json"
