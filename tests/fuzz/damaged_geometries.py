"""A Geometry whose document says all that an analysis writes, and seeded damage to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anglekit.results.geometry import Geometry
from tests.fuzz.damaged_tables import damaged_parquet
from tests.fuzz.harness import Case
from tests.fuzz.mutations import damaged_json_file


def documented(geometry: Geometry) -> Geometry:
    """Return a Geometry whose document says all that `analyze` writes."""
    model = {"source": "runs/x", "model_type": "bert", "architecture": "BertModel", "width": 12, "sha256": "c" * 64}
    depth = dict.fromkeys(geometry.angles["stream"].unique(), 2)
    students = [{**entry, **model, "depth": depth} for entry in geometry.provenance["students"]]
    state = {"teacher": {"1": 3}, "student": {}}
    by_stream = {"tokens": 24, "zero_direction": [{"vertex": 0, "teacher_layer": 0}]}
    by_stream |= {"nonfinite_states": state, "zero_states": state}
    first = {"student": students[0]["name"], "stream": next(iter(depth)), "vertex": 1}
    sketch = {"teacher_i": 0, "teacher_k": 2, "example": 4, "token": "good", "distance_i": 1.0, "distance_k": 1.5}
    tables = {name: getattr(geometry, name) for name in geometry.__dataclass_fields__}
    return Geometry(
        **{
            **tables,
            "settings": {
                "reading": "corrected",
                "final_norm": "excluded",
                "special_tokens": True,
                "seed": 0,
                "max_length": None,
                "teacher_layers": {stream: [0, 1, 2] for stream in depth},
                "vertices": {entry["name"]: {stream: [0, 1, 2] for stream in depth} for entry in students},
            },
            "provenance": {
                "students": students,
                "teacher": {"name": "teacher", **model, "depth": depth},
                "probe": {"source": "dev.tsv", "sha256": "a" * 64, "text": "sentence", "text_pair": None},
                "packages": {"torch": "2.6"},
                "device": "cpu",
                "dtype": "float32",
            },
            "counts": {
                "examples": 4,
                "skipped_rows": 1,
                "truncated_examples": 1,
                "truncated_tokens": 3,
                "max_length": 64,
                "by_student": {entry["name"]: dict.fromkeys(depth, by_stream) for entry in students},
            },
            "projections": [{**first, "kind": "adapter", "r_squared": 0.5, "teacher_layer": 1}],
            "sketch_tokens": [{**first, **sketch, "cosine": 0.6, "points": [[0, 1.0, 0.0], [2, 0.9, 1.2]]}],
        }
    )


def damage_geometry(case: Case, directory: Path, place: Path) -> None:
    rng = case.rng
    for _ in range(rng.choice((1, 1, 2))):
        action = rng.choice(("document", "document", "document", "table", "table", "table", "links"))
        if action == "document":
            more: dict[str, Any] = {
                "name": "../outside",
                "training_step": 10**30,
                "official_histogram": str(place / "x"),
                "shard": "1/2",
            }
            damaged_json_file(case, directory / "geometry.json", more)
        elif action == "table":
            damaged_parquet(case, rng.choice(sorted(directory.glob("*.parquet"))))
        else:
            file = rng.choice(sorted(directory.iterdir()))
            target = rng.choice(("/dev/null", "nowhere", file.name, "."))
            file.unlink()
            file.symlink_to(target)
            case.did.append(f"{file.name} links to {target}")
            return
