"""Languages of multilingual tokenizers: named each time, never kept from an earlier call, and written by the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import MBart50Tokenizer, MBartTokenizer, NllbTokenizer

from anglekit.errors import InputError
from anglekit.probes.encode import encode_texts
from anglekit.probes.languages import generated_language, language_id, set_languages
from anglekit.probes.tokenize import settings_apart, unlike_words
from anglekit.settings_fields import SettingError

KINDS = {
    "nllb": (NllbTokenizer, "eng_Latn", "fra_Latn", "forced_bos_token_id"),
    "mbart50": (MBart50Tokenizer, "en_XX", "fr_XX", "forced_bos_token_id"),
    "mbart": (MBartTokenizer, "en_XX", "fr_XX", "decoder_start_token_id"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_sources_and_targets_have_their_languages(kind):
    make, source, target, setting = KINDS[kind]
    tokenizer = make()
    place = -1 if kind == "mbart" else 0
    plain = make()
    plain(text_target=["a"])
    assert kind == "mbart" or plain.tgt_lang == source, "what it keeps of its own accord"
    notes = set_languages(tokenizer, None, None)
    assert (len(notes), generated_language(tokenizer)) == (2, {})
    assert "--source-lang" in notes[0]
    assert "--target-lang" in notes[1]
    encode_texts(tokenizer, ["a"], as_target=True)
    assert tokenizer.tgt_lang is None, "a call without a language does not settle it"
    assert set_languages(tokenizer, target, source) == ()
    for _ in range(2):
        ids = [encode_texts(tokenizer, ["a", "b"], as_target=flag)["input_ids"][0][place] for flag in (False, True)]
        assert ids == [language_id(tokenizer, code) for code in (target, source)]
    assert generated_language(tokenizer) == {setting: language_id(tokenizer, source)}
    with pytest.raises(SettingError, match=rf"target_lang is 'fr'; allowed: .*{target}|target_lang is 'fr'"):
        set_languages(tokenizer, source, "fr")


def test_tokenizers_without_languages_refuse_one(tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    assert set_languages(tokenizer, None, None) == ()
    assert generated_language(tokenizer) == {}
    with pytest.raises(SettingError, match=r"source_lang is 'en', and .* writes no codes of languages; leave it out"):
        set_languages(tokenizer, "en", None)


def test_a_tokenizer_that_needs_a_target_language_says_so():
    """M2M-100 writes no target without one: its own error is a KeyError."""

    class M2M100:
        lang_code_to_token = {"en": "__en__", "fr": "__fr__"}  # noqa: RUF012
        src_lang, tgt_lang = "en", None

        def get_lang_id(self, code):
            return {"en": 7, "fr": 8}[code]

    tokenizer = M2M100()
    with pytest.raises(InputError, match="names no language of the targets; name it, such as --target-lang fr"):
        set_languages(tokenizer, "en", None)
    assert set_languages(tokenizer, "en", "fr") == ()
    assert tokenizer.tgt_lang == "fr"


def test_settings_that_change_how_a_text_is_read_are_named(tiny_tokenizer):
    from tokenizers import normalizers

    one, other = tiny_tokenizer(), tiny_tokenizer()
    assert settings_apart(one, other) == ()
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert settings_apart(one, other) == ("their normalizers differ",)
    assert unlike_words("The film", one, other).endswith("is number 1 and 4 (their normalizers differ)")
    other.init_kwargs["do_lower_case"] = True
    assert settings_apart(one, other) == ("do_lower_case is None and True",)


def test_an_analysis_takes_languages_records_them_and_notes_those_that_nobody_named(tmp_path):
    import torch
    from transformers import MBartConfig, MBartForConditionalGeneration

    from anglekit.analysis.analyze import analyze
    from anglekit.analysis.jobs.extract import extract_states
    from anglekit.analysis.settings import AnalysisSettings
    from anglekit.models.checkpoints import Checkpoint
    from anglekit.probes.data import ProbeData
    from anglekit.states.store import load_stored_teacher

    tokenizer = MBart50Tokenizer()
    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 2}
    models = []
    for name, depth in (("teacher", 2), ("student", 1)):
        torch.manual_seed(depth)
        config = MBartConfig(
            vocab_size=len(tokenizer), encoder_layers=depth, decoder_layers=depth, **sizes, **heads, pad_token_id=1
        )
        model = MBartForConditionalGeneration(config).eval()
        models.append(Checkpoint.of(model, tokenizer, name=name))
    texts = ("a b", "b a", "a a b", "b b a")
    probe = ProbeData("rows", "0" * 64, texts, None, texts, tuple(range(4)), 0, "source", None, "target")

    def analysed(**languages):
        settings = AnalysisSettings(nulls="none", similarity="none", **languages)
        return analyze(models[0], [models[1]], probe, settings=settings)

    plain = analysed()
    assert [note.split(",")[0] for note in plain.document.provenance.probe_notes] == [
        "sources are read as en_XX",
        "targets are read as en_XX",
    ]
    assert "source_lang" not in plain.settings
    named = analysed(source_lang="fr_XX", target_lang="de_DE")
    assert named.document.provenance.probe_notes == ()
    assert (named.settings["source_lang"], named.settings["target_lang"]) == ("fr_XX", "de_DE")
    with pytest.raises(SettingError, match="target_lang is 'xx'"):
        analysed(source_lang="fr_XX", target_lang="xx")
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("en_XX", None), "the caller's tokenizer is as it was"

    languages = AnalysisSettings(source_lang="fr_XX", target_lang="de_DE")
    store = extract_states(tmp_path / "states", models[0], probe, languages)
    assert (store.document.source_lang, store.document.target_lang) == ("fr_XX", "de_DE")
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("en_XX", None)
    stored = load_stored_teacher(tmp_path / "states")
    assert (stored.tokenizer.src_lang, stored.tokenizer.tgt_lang) == ("fr_XX", "de_DE")
    read = analyze(stored, [models[1]], probe, settings=replace(languages, nulls="none", similarity="none"))
    assert read.angles["mean_cosine"].equals(named.angles["mean_cosine"])
    with pytest.raises(InputError, match="the store's, --source-lang fr_XX and --target-lang de_DE"):
        analyze(stored, [models[1]], probe, settings=replace(languages, source_lang="en_XX"))
