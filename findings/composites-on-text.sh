#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: composite models (an image tower and a text model) that are given text alone.
#
# Expected: on text alone a composite computes what its text model computes by itself, under the class that transformers
# has for it; and whether a token sees those behind it does not depend on padding or on the way attention is computed.
# Seen: Aya Vision's head takes no notice of `logit_scale`, which Cohere2's own class multiplies with, so that logits
# differ by that factor (16 by default) while states agree. Gemma with `use_bidirectional_attention`, which PaliGemma
# sets for its text model, attends both ways with sdpa and no padding, and forwards only beside padding or with eager
# attention. LLaVA and Gemma 3 agree with their text models.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 \
  transformers==5.23.0
"$place/venv/bin/python" - <<'PYTHON' 2>"$place/progress" || { cat "$place/progress"; exit 1; }
import torch
import transformers as hf

IDS = torch.arange(5, 17)[None]
TEXT = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
TEXT |= dict(num_key_value_heads=2, head_dim=8, pad_token_id=0, bos_token_id=2, eos_token_id=3)
TOWER = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)


def made(kind, config):
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    return model


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


for whole, text, kind in (
    ("LlavaForConditionalGeneration", "LlamaForCausalLM", ("llava", "llama", "clip_vision_model")),
    ("Gemma3ForConditionalGeneration", "Gemma3ForCausalLM", ("gemma3", "gemma3_text", "siglip_vision_model")),
    ("AyaVisionForConditionalGeneration", "Cohere2ForCausalLM", ("aya_vision", "cohere2", "siglip_vision_model")),
):
    own, inside, tower = kind
    parts = dict(text_config={**TEXT, "model_type": inside}, vision_config={**TOWER, "model_type": tower})
    composite = made(getattr(hf, whole), hf.AutoConfig.for_model(own, **parts, image_token_index=60))
    alone = made(getattr(hf, text), composite.config.text_config)
    alone.model.load_state_dict(composite.model.language_model.state_dict())
    alone.set_output_embeddings(composite.get_output_embeddings())
    factor = float((logits(composite) / logits(alone)).median())
    same = torch.allclose(logits(composite), factor * logits(alone), atol=1e-4)
    print(f"{whole}: logits are {factor:.1f} times those of {text}")
    assert same and round(factor) == (16 if own == "aya_vision" else 1)


def sees_the_last_token(model, padding):
    """Whether another last token changes the state of the first one."""
    other = IDS.clone()
    other[0, -1] = 40
    mask = torch.ones_like(IDS)
    with torch.no_grad():
        first, second = (
            model(
                input_ids=torch.nn.functional.pad(ids, (0, padding)),
                attention_mask=torch.nn.functional.pad(mask, (0, padding)),
            ).last_hidden_state[0, 0]
            for ids in (IDS, other)
        )
    return not torch.allclose(first, second, atol=1e-4)


seen = {}
for way in ("sdpa", "eager"):
    gemma = made(hf.GemmaModel, hf.GemmaConfig(**TEXT, use_bidirectional_attention=True, attn_implementation=way))
    for padding in (0, 2):
        seen[way, padding] = sees_the_last_token(gemma, padding)
        print(f"Gemma that is to attend both ways, {way}, {padding} tokens of padding: it does so: {seen[way, padding]}")
assert seen == {("sdpa", 0): True, ("sdpa", 2): False, ("eager", 0): False, ("eager", 2): False}
print("unchanged")
PYTHON
