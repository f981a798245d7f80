#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.22: AutoTokenizer in a directory that holds a model's config.json and a tokenizer.
#
# Expected: a tokenizer that was saved by `save_pretrained` and read by `AutoTokenizer.from_pretrained` gives the same
# tokens, whatever model lies beside it.
# Seen: beside a model of type qwen2 or qwen3_5 (of a list of types whose files on the hub name a wrong class) the saved
# class and the saved kind count for nothing: the type's own BPE tokenizer is made of the saved vocabulary without any
# merges. Of a tokenizer of whole words every word is lost, the sentence is its two special tokens, and nothing is said.
# Beside a bert or a qwen3 the same files are read as they were saved.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 transformers==5.23.0
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - "$place" <<'PYTHON'
import sys
from pathlib import Path
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

words = {word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "was", "good"))}
inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
inner.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
saved = PreTrainedTokenizerFast(
    tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
)
sentence = "the film was good"
print(f"saved: {saved(sentence).input_ids}")
read = {}
for kind in ("bert", "qwen3", "qwen2", "qwen3_5"):
    directory = Path(sys.argv[1]) / kind
    AutoConfig.for_model(kind).save_pretrained(directory)
    saved.save_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    read[kind] = tokenizer(sentence).input_ids
    model = type(tokenizer.backend_tokenizer.model).__name__
    print(f"beside a {kind}: {read[kind]} by {type(tokenizer).__name__} ({model})")
assert read["bert"] == read["qwen3"] == saved(sentence).input_ids == [2, 4, 5, 6, 7, 3]
assert read["qwen2"] == read["qwen3_5"] == [2, 3]
print("unchanged: the type of the model beside it replaces a tokenizer, and every word is lost")
PYTHON
