#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.23: NLLB's and mBART-50's tokenizers without a target language.
#
# Expected: a target that is tokenised without a target language is refused, or read in the tokenizer's own language of
# that moment, and the tokenizer is afterwards as it was: who sets another language of the sources gets that one.
# Seen: the first call with `text_target` sets `tgt_lang` to the language that the sources have then, and without a word
# it stays so: with the sources set to German, targets are still marked as English. M2M-100 raises a KeyError instead.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 tokenizers==0.23.3 transformers==5.23.0
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PYTHON'
from transformers import MBart50Tokenizer, NllbTokenizer

for kind, english, german in ((NllbTokenizer, "eng_Latn", "deu_Latn"), (MBart50Tokenizer, "en_XX", "de_DE")):
    tokenizer = kind(src_lang=english)
    assert tokenizer.tgt_lang is None
    first = tokenizer.convert_ids_to_tokens(tokenizer(text_target="a").input_ids)[0]
    tokenizer.src_lang = german
    source = tokenizer.convert_ids_to_tokens(tokenizer("a").input_ids)[0]
    target = tokenizer.convert_ids_to_tokens(tokenizer(text_target="a").input_ids)[0]
    print(f"{kind.__name__}: first target {first}; then a source {source}, and a target {target}; tgt_lang is {tokenizer.tgt_lang}")
    assert (first, source, target, tokenizer.tgt_lang) == (english, german, english, english)
print("unchanged: the first target settles the target language for good")
PYTHON
