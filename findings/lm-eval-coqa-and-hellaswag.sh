#!/usr/bin/env bash
# lm-eval 0.4.13, transformers 5.23.0 (lm-eval[hf] asks for transformers>=4.1): the tasks `coqa` and `hellaswag`.
#
# Expected: a task that the harness lists can be loaded with a transformers that it admits; between a prompt and an ending
# of HellaSwag stands one blank, the task's delimiter.
# Seen: `lm_eval` ends in a ModuleNotFoundError for `coqa`: its scores import `transformers.data.metrics.squad_metrics`,
# which transformers 5 does not have. (Eight more files of tasks import it.) And WikiHow's endings that begin with a mark
# ("[substeps] Stir it.") follow two blanks, since the mark is taken out after the blanks at the ends; with byte-level
# tokens that is another first token, and all others of the choice follow it. Nothing is said of it.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 \
  'lm-eval[hf]==0.4.13' transformers==5.23.0
cd "$place"
export HF_HUB_OFFLINE=1
! venv/bin/lm_eval run --model dummy --tasks coqa >coqa.txt 2>&1 || { echo "coqa was loaded"; exit 1; }
grep -o "ModuleNotFoundError: No module named 'transformers.data.metrics'" coqa.txt | tail -1
venv/bin/python - <<'PYTHON' 2>progress || { cat progress; exit 1; }
import json
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

row = {"activity_label": "Cooking", "ctx_a": "[header] How to cook rice [title] Stir it.", "ctx_b": "", "label": "0"}
endings = ["[substeps] Stir it.", "Stir it.", "[step] Stir it.", "Serve it."]
Path("rows.jsonl").write_text(json.dumps(row | {"endings": endings}) + "\n")
own = Path(lm_eval.__file__).parent / "tasks" / "hellaswag" / "hellaswag.yaml"
Path("local.yaml").write_text(
    f"include: {own}\ntask: local\ndataset_path: json\ntraining_split: null\n"
    "dataset_kwargs:\n  data_files:\n    validation: rows.jsonl\n"
)
told = lm_eval.simple_evaluate(
    model="dummy", tasks=["local"], task_manager=TaskManager(include_path=".", include_defaults=False), bootstrap_iters=0
)
[sample] = told["samples"]["local"]
follows = [ending for _, ending in sample["arguments"]]
print("behind", repr(sample["doc"]["query"]), "follow", follows)
assert follows == ["  Stir it.", " Stir it.", "  Stir it.", " Serve it."]
PYTHON
! grep -i whitespace progress
echo "unchanged: coqa cannot be loaded, and endings that begin with a mark follow two blanks"
