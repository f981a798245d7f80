"""Small files that claim to be enormous, read one after the other in a process whose memory is measured.

Started by `test_bombs` as a script: prints a line of json for each bomb.
"""

from __future__ import annotations

import json
import resource
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from anglekit.errors import AnglekitError
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.projections import load_adapters
from anglekit.probes.data import read_probe
from anglekit.recipes.recipe_files import load_recipe
from anglekit.results.geometry import Geometry

# Beyond it a bomb ends by itself, before the machine suffers.
_ADDRESS_SPACE = 8 << 30


def bombs(place: Path, checkpoint: Path, geometry: Path) -> dict[str, Callable[[], object]]:
    """Return each bomb's name and what reads it; its file is written when it is read."""
    return {
        **{
            f"config {key} {value}": lambda key=key, value=value: _config(checkpoint, key, value)
            for key, value in _CLAIMS
        },
        "config nested": lambda: _text(checkpoint / "config.json", '{"a":' * 10**6, checkpoint),
        "config wide": lambda: _text(checkpoint / "config.json", "[" + "[]," * (10**7) + "[]]", checkpoint),
        "tokenizer nested": lambda: _text(checkpoint / "tokenizer.json", "[" * 10**6, checkpoint),
        "tokenizer large": lambda: _text(checkpoint / "tokenizer.json", '{"x": "' + "a" * (80 << 20), checkpoint),
        "index wide": lambda: _index(checkpoint),
        "weights of 1e9": lambda: _weights(checkpoint / "model.safetensors", [10**9], checkpoint),
        "weights of 1e18": lambda: _weights(checkpoint / "model.safetensors", [10**9, 10**9], checkpoint),
        "weights header": lambda: _header(checkpoint / "model.safetensors", checkpoint),
        "adapters of 1e9": lambda: _adapters(checkpoint),
        "geometry nested": lambda: _geometry(geometry, '{"schema_version": 1, "settings":' + '{"a":' * 10**6),
        "geometry wide": lambda: _geometry(geometry, "[" + "[]," * 10**7 + "[]]"),
        "geometry digits": lambda: _geometry(geometry, '{"schema_version": ' + "9" * 10**6 + "}"),
        "table of rows": lambda: _rows(geometry),
        "table of texts": lambda: _long_students(geometry),
        "parquet rows": lambda: _probe(place, {"text": pa.array(["a"] * 10**6)}, times=12),
        "parquet texts": lambda: _probe(place, {"text": _repeated("a" * 900_000, 5000)}),
        "parquet columns": lambda: _probe(place, {f"c{number}": pa.array(["a"]) for number in range(12_000)}),
        "jsonl keys": lambda: _jsonl(place),
        "jsonl nested": lambda: _table(place / "x.jsonl", '{"text": ' + "[" * 10**6),
        "csv columns": lambda: _table(place / "x.csv", ",".join(map(str, range(10**6))) + "\n" + "," * (10**6 - 1)),
        "csv line": lambda: _table(place / "x.csv", "text\n" + "a " * (4 << 20) + "\n"),
        "recipe nested": lambda: _recipe(place, "a: " + "[" * 200_000),
        "recipe aliases": lambda: _recipe(place, "a: &a [x]\n" + "b: [*a, *a]\n" * 9000),
        "recipe large": lambda: _recipe(place, "a: " + "x" * (64 << 20)),
    }


_CLAIMS: tuple[tuple[str, Any], ...] = (
    ("num_hidden_layers", 10**6),
    ("num_hidden_layers", 20_000),
    ("num_hidden_layers", 10**12),
    ("hidden_size", 10**9),
    ("intermediate_size", 10**10),
    ("vocab_size", 10**9),
    ("vocab_size", 10**15),
    ("max_position_embeddings", 10**10),
    ("type_vocab_size", 10**10),
    ("num_labels", 10**9),
    ("num_attention_heads", 10**9),
)


def _config(checkpoint: Path, key: str, value: Any) -> object:
    file = checkpoint / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    return load_checkpoint(str(checkpoint))


def _text(file: Path, text: str, checkpoint: Path) -> object:
    file.write_text(text)
    return load_checkpoint(str(checkpoint))


def _index(checkpoint: Path) -> object:
    (checkpoint / "model.safetensors").unlink()
    names = ",".join(f'"w{number}":"f{number}.safetensors"' for number in range(50_000))
    return _text(checkpoint / "model.safetensors.index.json", f'{{"weight_map":{{{names}}}}}', checkpoint)


def _weights(file: Path, shape: list[int], checkpoint: Path) -> object:
    size = 4
    for side in shape:
        size *= side
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    return load_checkpoint(str(checkpoint))


def _header(file: Path, checkpoint: Path) -> object:
    file.write_bytes(struct.pack("<Q", 10**12) + b"{" * 1000)
    return load_checkpoint(str(checkpoint))


def _adapters(checkpoint: Path) -> object:
    header = json.dumps(
        {"encoder.1.weight": {"dtype": "F32", "shape": [10**5, 10**5], "data_offsets": [0, 4 * 10**10]}}
    )
    file = checkpoint / "anglekit_adapters.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    return load_adapters(checkpoint)


def _geometry(geometry: Path, text: str) -> object:
    (geometry / "geometry.json").write_text(text)
    return Geometry.load(geometry)


def _rows(geometry: Path) -> object:
    file = geometry / "angles.parquet"
    table = pq.read_table(file).slice(0, 1)
    one = {name: pa.array(table.column(name).to_pylist() * 10**6) for name in table.column_names}
    with pq.ParquetWriter(file, pa.table(one).schema, compression="zstd") as writer:
        for _ in range(3):
            writer.write_table(pa.table(one))
    return Geometry.load(geometry)


def _long_students(geometry: Path) -> object:
    file = geometry / "angles.parquet"
    table = pq.read_table(file).slice(0, 1)
    one = {name: pa.array(table.column(name).to_pylist() * 50_000) for name in table.column_names}
    one["student"] = _repeated("x" * 10**6, 50_000)
    pq.write_table(pa.table(one), file, compression="zstd")
    return Geometry.load(geometry)


def _probe(place: Path, columns: dict[str, Any], times: int = 1) -> object:
    file = place / "x.parquet"
    table = pa.table(columns)
    with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        for _ in range(times):
            writer.write_table(table)
    return read_probe(str(file))


def _repeated(text: str, rows: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))


def _jsonl(place: Path) -> object:
    lines = (json.dumps({"text": "a", **{f"k{row}.{n}": 1 for n in range(3)}}) for row in range(20_000))
    return _table(place / "x.jsonl", "\n".join(lines))


def _table(file: Path, text: str) -> object:
    file.write_text(text)
    return read_probe(str(file))


def _recipe(place: Path, text: str) -> object:
    (place / "x.yaml").write_text(text)
    return load_recipe(place / "x.yaml")


def _outcome(read: Callable[[], object]) -> str:
    try:
        read()
    except AnglekitError as error:
        return f"refused: {error}"
    except BaseException as error:  # reported, whatever it is
        return f"{type(error).__name__}: {str(error)[:300]}"
    return "read"


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    """Read every bomb from fresh copies of a checkpoint and a Geometry."""
    place, checkpoint, geometry = map(Path, sys.argv[1:4])
    load_checkpoint(str(checkpoint))
    Geometry.load(geometry)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    copies = place / "checkpoint", place / "geometry"
    for name, read in bombs(place, *copies).items():
        for original, copy in zip((checkpoint, geometry), copies, strict=True):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(original, copy)
        base = _peak_mib()
        outcome = _outcome(read)
        sys.stdout.write(json.dumps({"bomb": name, "outcome": outcome[:2000], "grown": _peak_mib() - base}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
