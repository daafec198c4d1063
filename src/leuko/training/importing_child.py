"""The confined half of an import: runs in a child process of its own and nowhere else.

First the foreign file is taken apart with h5py and zipfile alone: every object in it is
checked, the architecture is understood (`leuko.training.importing_layers`), the weights are
read as plain numbers. From these a new file is written. Only then is TensorFlow imported, and
Keras opens the new file, never the foreign one. h5py is a large C library reading a stranger's
bytes; that is why even this first step does not run in the parent.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import stat
import sys
import traceback
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import BundleError, LeukoError
from leuko.training.importing_layers import MAXIMUM_PARAMETERS, Architecture, read_architecture

__all__ = ["JOB", "MODEL", "RESULT", "confine", "main"]

JOB: Final = "job.json"
FOREIGN: Final = "foreign.bin"
MODEL: Final = "model.onnx"
RESULT: Final = "result.json"

_CONFIG: Final = "config.json"
_METADATA: Final = "metadata.json"
_WEIGHTS: Final = "model.weights.h5"
_USED: Final = {_CONFIG: 32 * 2**20, _METADATA: 2**20, _WEIGHTS: 2 * 2**30}
_MAXIMUM_MEMBERS: Final = 256
_MAXIMUM_RATIO: Final = 200
_MAXIMUM_OBJECTS: Final = 40_000
_MAXIMUM_DEPTH: Final = 40

_Array = npt.NDArray[Any]


def main(folder: str) -> int:
    """Do one import in `folder`, which holds the job and the foreign file.

    Parameters
    ----------
    folder : str
        The child's own temporary folder, its working directory.

    Returns
    -------
    int
        0 when a result was written, whatever it says.
    """
    home = Path(folder).resolve()
    job = json.loads((home / JOB).read_text())
    result: dict[str, Any]
    try:
        limits = confine(home, job["limits"])
        result = _convert(home, job) | {"status": "ok", "limits": limits}
    except LeukoError as error:
        result = {"status": "refused", "sentence": str(error)}
    except MemoryError:
        result = {
            "status": "refused",
            "sentence": "The network needs more memory than an import may use "
            f"({job['limits']['memory'] / 2**30:.0f} GiB).",
        }
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent needs a sentence
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0][:200]
        result = {
            "status": "refused",
            "sentence": f"The network cannot be rebuilt: {type(error).__name__}: {first}",
        }
    (home / RESULT).write_text(json.dumps(result))
    return 0


def confine(home: Path, limits: dict[str, int]) -> list[str]:
    """Take from this process, for good, what an import has no use for.

    Parameters
    ----------
    home : Path
        The only folder in which it may write from now on.
    limits : dict
        ``memory`` and ``file`` in bytes, ``cpu`` in seconds.

    Returns
    -------
    list of str
        Which limits this system knows and has set.
    """
    kept = _limit_resources(limits)
    root = os.path.realpath(home)
    refused = (
        "subprocess.", "socket.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
        "os.startfile", "pty.", "ftplib.", "smtplib.", "urllib.", "http.", "webbrowser.",
        "pickle.find_class", "os.kill",
    )  # fmt: skip
    changing = _words(
        "os.chmod os.chown os.link os.mkdir os.remove os.rename os.rmdir os.symlink os.truncate "
        "os.utime shutil.move shutil.rmtree"
    )

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            if isinstance(flags, int) and flags & writes and not isinstance(path, int):
                _inside(path, root, event)
        elif event in changing:
            for path in arguments:
                if isinstance(path, str | bytes | os.PathLike):
                    _inside(path, root, event)
        elif event.startswith(refused):
            raise PermissionError(f"an import may not use {event}")

    sys.addaudithook(guard)
    return [*kept, "no processes, no network, no writing elsewhere (in Python)"]


def _inside(path: Any, root: str, event: str) -> None:
    real = os.path.realpath(os.fsdecode(path))
    if real not in (root, os.devnull) and not real.startswith(root + os.sep):
        raise PermissionError(f"an import may not use {event} outside its own folder")


def _limit_resources(limits: dict[str, int]) -> list[str]:
    """Limit memory, processor time, file size and open files where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    done = []
    for name, kind, value in (
        ("memory", "RLIMIT_AS", limits["memory"]),
        ("cpu", "RLIMIT_CPU", limits["cpu"]),
        ("file", "RLIMIT_FSIZE", limits["file"]),
        ("open files", "RLIMIT_NOFILE", 256),
        ("core", "RLIMIT_CORE", 0),
    ):
        which = getattr(resource, kind, None)
        if which is None:
            continue
        ceiling = resource.getrlimit(which)[1]
        wanted = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(which, (wanted, wanted))
            done.append(name)
    return done


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _convert(home: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Understand the foreign file, write it anew, and convert the new one."""
    foreign = home / FOREIGN
    with foreign.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        kind, (architecture, version, rebuilt) = "h5", _rebuild_h5(foreign, home, job)
    else:
        kind, (architecture, version, rebuilt) = "keras", _rebuild_archive(foreign, home, job)
    foreign.unlink()

    import keras

    from leuko.training.export import export_onnx

    model = keras.saving.load_model(rebuilt, custom_objects=None, compile=False, safe_mode=True)
    built = int(model.count_params())
    if built != architecture.parameters:
        raise BundleError(
            f"Keras built {built:,} parameters where {architecture.parameters:,} were counted; "
            "such a file is not imported."
        )
    notes = list(architecture.notes)
    if architecture.ending == "linear":
        notes.append("The network ends in logits; a softmax was added.")
    data = export_onnx(
        model,
        input_scale=job["input_scale"],
        class_order=job["class_order"],
        append_softmax=architecture.ending == "linear",
    )
    (home / MODEL).write_bytes(data)
    return {
        "format": kind,
        "keras_version": version,
        "input_size": list(architecture.size),
        "parameters": built,
        "layers": architecture.layers,
        "softmax_added": architecture.ending == "linear",
        "notes": notes,
        "keras": str(keras.__version__),
    }


# --- .h5 -------------------------------------------------------------------------------------


def _rebuild_h5(foreign: Path, home: Path, job: dict[str, Any]) -> tuple[Architecture, str, Path]:
    """Understand a legacy HDF5 model and write it anew, weights in the same order."""
    import h5py

    with _open_h5(foreign) as file:
        objects = _walk(file)
        text = _attribute(file, "model_config")
        if text is None:
            raise BundleError(
                "The file holds weights but no architecture; save the whole model "
                "(model.save), not its weights alone."
            )
        architecture = read_architecture(_json(text, "model_config"), outputs=job["outputs"])
        version = _version(_attribute(file, "keras_version"))
        _refuse_changed(architecture, version)
        root = objects.get("model_weights")
        if not isinstance(root, h5py.Group):
            raise BundleError("The file holds no weights (no group 'model_weights').")
        groups: list[list[_Array]] = []
        for layer in _names(root, "layer_names"):
            group = objects.get(f"model_weights/{layer}")
            if not isinstance(group, h5py.Group):
                raise BundleError(f"The weights of the layer {layer[:60]!r} are missing.")
            arrays = []
            for name in _names(group, "weight_names"):
                data = objects.get(f"model_weights/{layer}/{name}")
                if not isinstance(data, h5py.Dataset):
                    raise BundleError(f"The weights {name[:60]!r} are missing.")
                arrays.append(data)
            groups.append(arrays)
        _check_total(sum(data.size for group in groups for data in group), architecture)
        path = home / "rebuilt.h5"
        with h5py.File(path, "w") as new:
            new.attrs["model_config"] = json.dumps(architecture.config)
            new.attrs["keras_version"] = "3.0.0"
            new.attrs["backend"] = "tensorflow"
            weights = new.create_group("model_weights")
            weights.attrs["keras_version"] = "3.0.0"
            weights.attrs["backend"] = "tensorflow"
            # Keras goes by the order, not by the names; only layers with weights count.
            full = [group for group in groups if group]
            _write_names(weights, "layer_names", [f"l{index}" for index in range(len(full))])
            for index, group in enumerate(full):
                layer = weights.create_group(f"l{index}")
                names = [f"w{place}" for place in range(len(group))]
                _write_names(layer, "weight_names", names)
                for name, data in zip(names, group, strict=True):
                    layer.create_dataset(name, data=_numbers(data))
    return architecture, version, path


def _names(group: Any, key: str) -> list[str]:
    """Read a list of names from attributes; long lists are spread over several."""
    chunks = [group.attrs[key]] if key in group.attrs else []
    while not (chunks and key in group.attrs) and f"{key}{len(chunks)}" in group.attrs:
        chunks.append(group.attrs[f"{key}{len(chunks)}"])
    names = []
    for chunk in chunks:
        for item in np.asarray(chunk).ravel().tolist():
            name = item.decode("utf-8", "replace") if isinstance(item, bytes) else item
            if not isinstance(name, str) or not name or len(name) > 500:
                raise BundleError("A list of weight names in the file is damaged.")
            names.append(name)
    if len(names) > _MAXIMUM_OBJECTS or len(set(names)) != len(names):
        raise BundleError("A list of weight names in the file is too long or repeats itself.")
    return names


def _write_names(group: Any, key: str, names: list[str]) -> None:
    """Write a list of names as Keras reads it, in attributes below 64 kB."""
    data = np.asarray([name.encode() for name in names], dtype="S8")
    if len(data) <= 4000:
        group.attrs[key] = data
        return
    for index, start in enumerate(range(0, len(data), 4000)):
        group.attrs[f"{key}{index}"] = data[start : start + 4000]


# --- .keras ----------------------------------------------------------------------------------


def _rebuild_archive(
    foreign: Path, home: Path, job: dict[str, Any]
) -> tuple[Architecture, str, Path]:
    """Understand a .keras archive and write it anew, from the same three members."""
    import h5py

    members = _read_members(foreign)
    architecture = read_architecture(_json(members[_CONFIG], _CONFIG), outputs=job["outputs"])
    metadata = _json(members.get(_METADATA, b"{}"), _METADATA)
    version = _version(metadata.get("keras_version") if isinstance(metadata, dict) else None)
    _refuse_changed(architecture, version)
    old, new = home / "foreign.h5", home / "rebuilt.h5"
    old.write_bytes(members.pop(_WEIGHTS))
    with _open_h5(old) as file:
        objects = _walk(file)
        chosen = {
            name: item
            for name, item in objects.items()
            if isinstance(item, h5py.Dataset)
            and not name.startswith("optimizer")
            and "seed_generator" not in name.split("/")
        }
        _check_total(sum(item.size for item in chosen.values()), architecture)
        with h5py.File(new, "w") as target:
            for name, item in chosen.items():
                target.create_dataset(name, data=_numbers(item))
    old.unlink()
    path = home / "rebuilt.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_METADATA, json.dumps({"keras_version": "3.0.0"}))
        archive.writestr(_CONFIG, json.dumps(architecture.config))
        archive.write(new, _WEIGHTS)
    new.unlink()
    return architecture, version, path


def _read_members(path: Path) -> dict[str, bytes]:
    """Read the three members of a .keras archive, after a look at all of them."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_members(infos)
            missing = {_CONFIG, _WEIGHTS} - {info.filename for info in infos}
            if missing:
                raise BundleError(
                    f"The archive lacks {', '.join(sorted(missing))}; it is not a model saved by "
                    "Keras 3 in its .keras format."
                )
            members = {}
            for info in infos:
                if info.filename in _USED:
                    with archive.open(info) as member:
                        data = member.read(_USED[info.filename] + 1)
                    if len(data) != info.file_size:
                        raise BundleError(
                            f"The member {info.filename!r} is not as long as the archive says."
                        )
                    members[info.filename] = data
            return members
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"The file is damaged or cut short: it cannot be read as a .keras archive ({error})."
        ) from error


def _check_members(infos: list[zipfile.ZipInfo]) -> None:
    """Refuse archives that escape, explode, hide or repeat."""
    if len(infos) > _MAXIMUM_MEMBERS:
        raise BundleError(
            f"The archive has {len(infos)} members; at most {_MAXIMUM_MEMBERS} are accepted."
        )
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in name or "\x00" in name:
            raise BundleError(
                f"The archive has a member {name[:60]!r} that points outside of it; "
                "the file is refused."
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BundleError(f"The archive has a link, {name[:60]!r}; the file is refused.")
        if name in seen:
            raise BundleError(f"The archive has two members named {name[:60]!r}.")
        seen.add(name)
        if info.flag_bits & 0x1:
            raise BundleError("The archive is encrypted; save the model without a password.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(f"The member {name[:60]!r} is packed in an unknown way.")
        limit = _USED.get(name, 2**30)
        ratio = info.file_size / max(1, info.compress_size)
        if info.file_size > limit or (info.file_size > 2**20 and ratio > _MAXIMUM_RATIO):
            raise BundleError(
                f"The member {name[:60]!r} would unpack to {info.file_size:,} bytes from "
                f"{info.compress_size:,}; that is refused."
            )


# --- HDF5 ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open_h5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; whatever the library stumbles over is a damaged file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise BundleError(
            f"The file is damaged or cut short: its HDF5 part cannot be read ({str(error)[:120]})."
        ) from error


def _walk(file: Any) -> dict[str, Any]:
    """Collect every object by path, refusing links, loops and data kept elsewhere."""
    import h5py

    objects: dict[str, Any] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, Any, int]] = [("", file, 0)]
    while waiting:
        prefix, group, depth = waiting.pop()
        for key in group:
            name = f"{prefix}{key}"
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise BundleError(
                    f"The file has a link to elsewhere ({type(link).__name__} {name[:80]!r}); "
                    "only self-contained files are imported."
                )
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen or depth > _MAXIMUM_DEPTH or len(objects) > _MAXIMUM_OBJECTS:
                raise BundleError(
                    f"The inside of the file is tangled near {name[:80]!r} (repeated, too deep or "
                    "too many objects); that is refused."
                )
            seen.add(address)
            objects[name] = item
            if isinstance(item, h5py.Group):
                waiting.append((f"{name}/", item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                _check_dataset(item, name)
            else:
                raise BundleError(f"The object {name[:80]!r} is neither a group nor an array.")
    return objects


def _check_dataset(data: Any, name: str) -> None:
    """Refuse arrays that lie in other files, are not numbers, or claim more than is there."""
    if data.external:
        raise BundleError(f"The array {name[:80]!r} lies in another file; that is refused.")
    if data.is_virtual:
        raise BundleError(f"The array {name[:80]!r} is made of other files; that is refused.")
    if data.shape is None or data.dtype.kind not in "fiub" or data.dtype.itemsize > 8:
        raise BundleError(f"The array {name[:80]!r} holds no plain numbers ({data.dtype}).")
    filters = data.id.get_create_plist()
    for index in range(filters.get_nfilters()):
        if filters.get_filter(index)[0] not in (1, 2, 3):  # deflate, shuffle, checksum
            raise BundleError(f"The array {name[:80]!r} is packed in an unknown way.")
    size = math.prod(data.shape) * data.dtype.itemsize
    stored = data.id.get_storage_size()
    if math.prod(data.shape) > 4 * MAXIMUM_PARAMETERS or (
        size > 2**20 and size > _MAXIMUM_RATIO * max(1, stored)
    ):
        raise BundleError(
            f"The array {name[:80]!r} claims {size:,} bytes and holds {stored:,}; that is refused."
        )


def _numbers(data: Any) -> _Array:
    """Read an array as float32 (or as it is, when it counts), all values finite."""
    values: _Array = np.asarray(data[()])
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise BundleError(
                f"The weights {data.name.strip('/')[:80]!r} hold values that are not finite "
                "numbers; such a model is not imported."
            )
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise BundleError(
                f"The weights {data.name.strip('/')[:80]!r} hold values too large for float32."
            )
    return values


def _check_total(found: int, architecture: Architecture) -> None:
    if found != architecture.parameters:
        raise BundleError(
            f"The architecture needs {architecture.parameters:,} weights and the file holds "
            f"{found:,}; the two do not belong together, or the file is damaged."
        )


def _attribute(file: Any, key: str) -> bytes | str | None:
    """Read a text attribute of the file's root."""
    if key not in file.attrs:
        return None
    value = file.attrs[key]
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    if isinstance(value, bytes | str):
        return value
    raise BundleError(f"The attribute {key} is no text.")


def _json(data: bytes | str, name: str) -> Any:
    """Parse JSON that a stranger wrote: bounded, without the constants JSON does not have."""
    if len(data) > _USED[_CONFIG]:
        raise BundleError(f"{name} is {len(data):,} bytes long; that is refused.")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.load(io.StringIO(text), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is damaged: {str(error)[:120]}.") from error


def _no_constant(name: str) -> Any:
    """Refuse NaN and the infinities, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is no JSON")


def _refuse_changed(architecture: Architecture, version: str) -> None:
    """Refuse what an older Keras meant otherwise by the same name."""
    if not version.startswith("3") and '"activation": "hard_sigmoid"' in json.dumps(
        architecture.config
    ):
        raise BundleError(
            f"The file is from Keras {version}, where hard_sigmoid was clip(0.2 x + 0.5, 0, 1); "
            "since Keras 3 it is relu6(x + 3) / 6, and the network would answer otherwise."
        )


def _version(value: object) -> str:
    """A version for the record, or "unknown"; it comes from the file and is only shown."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
    return text if 0 < len(text) <= 20 and text.isascii() and text.isprintable() else "unknown"
