"""Small tables in the form in which data sets are published: their columns and types, with rows of our own.

The forms are those of the data sets' own files and of their cards on the hub. Each says what a task must read of it.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Published:
    """A table as it is published.

    Attributes:
        name: of the data set and the form.
        file: what its file is called here.
        write: writes it.
        task: the task that reads it, or "probe".
        read: by field of what was read, its values; {}: it must be refused.
        says: what the refusal must name.
    """

    name: str
    file: str
    write: Callable[[Path], None]
    task: str
    read: dict[str, Any]
    says: str = ""


def lines(rows: Rows) -> Callable[[Path], None]:
    return lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8") and None


def array(rows: Any) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(rows, indent=1), encoding="utf-8") and None


def text(*rows: str) -> Callable[[Path], None]:
    return lambda path: path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8") and None


def packed(rows: Rows, pack: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(pack("".join(json.dumps(row) + "\n" for row in rows).encode())) and None


def zstd(raw: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    return bytes(sink.getvalue())


def parquet(rows: Rows, classes: dict[str, list[str]] | None = None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = pa.Table.from_pylist(list(rows))
        features = {name: {"names": names, "_type": "ClassLabel"} for name, names in (classes or {}).items()}
        told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        pq.write_table(table.replace_schema_metadata(told if classes else None), path)

    return write


def shards(rows: Rows) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.mkdir()
        half = len(rows) // 2
        for number, part in enumerate((rows[:half], rows[half:])):
            pq.write_table(pa.Table.from_pylist(list(part)), path / f"train-{number:05d}-of-00002.parquet")

    return write


PAIR = {"texts": ("A dog runs.", "It rains."), "pairs": ("An animal moves.", "It is dry.")}
NLI = {**PAIR, "labels": ("entailment", "contradiction")}
PARSES = "( A ( dog runs ) )\t( An animal )\t(ROOT a)\t(ROOT b)"
SNLI_LINE = {
    "annotator_labels": ["entailment"],
    "captionID": "1.jpg#0",
    "gold_label": "entailment",
    "pairID": "1.jpg#0e",
    "sentence1": "A dog runs.",
    "sentence1_binary_parse": "( A ( dog runs ) )",
    "sentence1_parse": "(ROOT a)",
    "sentence2": "An animal moves.",
    "sentence2_binary_parse": "( An animal )",
    "sentence2_parse": "(ROOT b)",
}
SNLI = [SNLI_LINE, {**SNLI_LINE, "sentence1": "It rains.", "sentence2": "It is dry.", "gold_label": "contradiction"}]
MULTI = [
    {**{k: v for k, v in row.items() if k != "captionID"}, "genre": "fiction", "promptID": "63735"} for row in SNLI
]
NLI_CLASSES = {"label": ["entailment", "neutral", "contradiction"]}
HUB_NLI = [
    {"premise": "A dog runs.", "hypothesis": "An animal moves.", "label": 0},
    {"premise": "It rains.", "hypothesis": "It is dry.", "label": 2},
]
BY_NUMBER = {**PAIR, "labels": ("0", "2")}
REVIEWS = [{"text": "a fine film", "label": 1}, {"text": "a dull film", "label": 0}]
FILMS = {"texts": ("a fine film", "a dull film"), "labels": ("1", "0")}
QUESTIONS = [
    {"question": "Is grass green?", "passage": "Grass is green.", "title": "Grass", "answer": True},
    {"question": "Is coal white?", "passage": "Coal is black.", "title": "Coal", "answer": False},
]
SQUAD = [
    {
        "id": "1",
        "title": "Pisa",
        "context": "The tower of Pisa leans.",
        "question": "What leans?",
        "answers": {"text": ["The tower", "The tower of Pisa"], "answer_start": [0, 0]},
    }
]
COQA = [
    {
        "source": "wikipedia",
        "story": "Ann has a cat.",
        "questions": ["Who has it?", "What?"],
        "answers": {"input_text": ["Ann", "a cat"], "answer_start": [0, 8], "answer_end": [3, 13]},
    }
]
COQA_OTHERS = [
    {
        "source": "wikipedia",
        "story": "Ann has a cat.",
        "questions": {"input_text": ["Who has it?", "What?"], "turn_id": [1, 2]},
        "answers": {"input_text": ["Ann", "a cat"], "span_start": [0, 8], "turn_id": [1, 2]},
        "additional_answers": {
            "0": {"input_text": ["ann", "the cat"], "span_start": [0, 8], "turn_id": [1, 2]},
            # As training tables have it, where there are none.
            "1": {"input_text": [""], "span_start": [-1], "turn_id": [-1]},
        },
    }
]
COQA_READ = {
    "prompts": (
        "Ann has a cat.\n\nQ: Who has it?\n\nA:",
        "Ann has a cat.\n\nQ: Who has it?\n\nA: Ann\n\nQ: What?\n\nA:",
    ),
    "completions": (("Ann",), ("a cat",)),
}
TURNS = [("human", "Hello"), ("gpt", "Hi!"), ("human", "Why?"), ("gpt", "Because.")]
CHAT = [{"content": said, "role": {"human": "user", "gpt": "assistant"}[who]} for who, said in TURNS]
CHAT_READ = {
    "completions": (("Hi!",), ("Because.",)),
    "prompts": ("User: Hello", "User: Hello\n\nAssistant: Hi!\n\nUser: Why?"),
}
ALPACA = [
    {"instruction": "Name a colour.", "input": "", "output": "Red"},
    {"instruction": "Add the numbers.", "input": "1 and 2", "output": "3"},
]
ALPACA_READ = {"prompts": ("Name a colour.", "Add the numbers.\n\n1 and 2"), "completions": (("Red",), ("3",))}
ARC = [
    {
        "id": "q1",
        "question": "What is hot?",
        "choices": {"text": ["ice", "fire"], "label": ["1", "2"]},
        "answerKey": "2",
    }
]
HOT = {"prompts": ("What is hot?",), "choices": (("ice", "fire"),), "right": (1,)}
DART = {
    "tripleset": [["Ann", "AGE", "9"], ["Ann", "PET", "cat"]],
    "subtree_was_extended": False,
}
TRIPLES = {"sources": ("Ann : AGE : 9 | Ann : PET : cat",), "targets": (("Ann, 9, has a cat.",),)}

PUBLISHED = (
    # ---- GLUE's own files: tab-separated, without quoting ----
    Published(
        "GLUE MNLI",
        "mnli.tsv",
        text(
            "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse"
            "\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
            f"0\t31193\t31193n\tgovernment\t{PARSES}\tA dog runs.\tAn animal moves.\tneutral\tentailment",
            f"1\t31194\t31194n\tfiction\t{PARSES}\tIt rains.\tIt is dry.\tcontradiction\tcontradiction",
        ),
        "mnli",
        NLI,
    ),
    Published(
        "GLUE QQP",
        "qqp.tsv",
        text(
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            '1\t2\t3\t"How" is it?\tHow "is it\t1',
            "4\t5\t6\tWhy?\tWhen?\t0",
        ),
        "qqp",
        {
            "texts": ('"How" is it?', "Why?"),
            "pairs": ('How "is it', "When?"),
            "labels": ("duplicate", "not_duplicate"),
        },
    ),
    Published(
        "GLUE QNLI",
        "qnli.tsv",
        text("index\tquestion\tsentence\tlabel", "0\tWho ran?\tAnn ran.\tentailment", "1\tWho?\tRain.\tnot_entailment"),
        "qnli",
        {
            "texts": ("Who ran?", "Who?"),
            "pairs": ("Ann ran.", "Rain."),
            "labels": ("entailment", "not_entailment"),
        },
    ),
    Published(
        "GLUE SST-2",
        "sst2.tsv",
        text("sentence\tlabel", '"a fine film\t1', 'a "dull film" \t0'),
        "sst2",
        {"texts": ('"a fine film', 'a "dull film" '), "labels": ("positive", "negative")},
    ),
    Published(
        "GLUE MRPC",
        "mrpc.tsv",
        text(
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            '1\t702876\t702977\tAmrozi accused him of " distorting " it .\tHe was accused .',
            "0\t1\t2\tIt rains .\tIt is dry .",
        ),
        "mrpc",
        {
            "texts": ('Amrozi accused him of " distorting " it .', "It rains ."),
            "pairs": ("He was accused .", "It is dry ."),
            "labels": ("equivalent", "not_equivalent"),
        },
    ),
    Published(
        "GLUE CoLA, no header",
        "cola.tsv",
        text("gj04\t1\t\tThe sailors rode the breeze.", "gj04\t0\t*\tThe was."),
        "cola",
        {"texts": ("The sailors rode the breeze.", "The was."), "labels": ("acceptable", "unacceptable")},
    ),
    Published(
        "GLUE RTE",
        "rte.tsv",
        text(
            "index\tsentence1\tsentence2\tlabel",
            "0\tA dog runs.\tAn animal moves.\tentailment",
            "1\tIt rains.\tIt is dry.\tnot_entailment",
        ),
        "rte",
        {**PAIR, "labels": ("entailment", "not_entailment")},
    ),
    Published(
        "GLUE STS-B",
        "stsb.tsv",
        text(
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
            "0\tmain-captions\tMSRvid\t2012\t1\tnone\tnone\tA dog runs.\tAn animal moves.\t4.200",
            "1\tmain-captions\tMSRvid\t2012\t2\tnone\tnone\tIt rains.\tIt is dry.\t0.500",
        ),
        "stsb",
        {**PAIR, "labels": (4.2, 0.5), "columns": ("sentence1", "sentence2", "score")},
    ),
    Published(
        "GLUE diagnostics, without labels",
        "ax.tsv",
        text("index\tsentence1\tsentence2", "0\tA dog runs.\tAn animal moves.", "1\tIt rains.\tIt is dry."),
        "probe",
        {"texts": PAIR["texts"], "text_pairs": PAIR["pairs"]},
    ),
    # ---- other sentence classification ----
    Published("SNLI 1.0", "snli_1.0_dev.jsonl", lines(SNLI), "classification", NLI),
    Published("SNLI on the hub", "snli.parquet", parquet(HUB_NLI, NLI_CLASSES), "classification", PAIR),
    Published("MultiNLI 1.0", "multinli_1.0_dev_matched.jsonl", lines(MULTI), "mnli", NLI),
    Published(
        "ANLI",
        "anli.jsonl",
        lines(
            [
                {
                    "uid": "1",
                    "context": "A dog runs.",
                    "hypothesis": "An animal moves.",
                    "label": "e",
                    "model_label": "n",
                    "emturk": False,
                    "genre": "wiki",
                    "reason": "clear",
                    "tag": "r1",
                },
                {
                    "uid": "2",
                    "context": "It rains.",
                    "hypothesis": "It is dry.",
                    "label": "c",
                    "model_label": "n",
                    "emturk": False,
                    "genre": "wiki",
                    "reason": "clear",
                    "tag": "r1",
                },
            ]
        ),
        "classification",
        {**PAIR, "labels": ("e", "c")},
    ),
    Published(
        "ANLI on the hub",
        "anli.parquet",
        parquet([{"uid": str(n), **row, "reason": ""} for n, row in enumerate(HUB_NLI)], NLI_CLASSES),
        "classification",
        PAIR,
    ),
    Published(
        "PAWS",
        "paws.tsv",
        text("id\tsentence1\tsentence2\tlabel", "1\tA dog runs.\tAn animal moves.\t1", "2\tIt rains.\tIt is dry.\t0"),
        "classification",
        {**PAIR, "labels": ("1", "0")},
    ),
    Published(
        "XNLI 1.0",
        "xnli.dev.tsv",
        text(
            "language\tgold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
            "\tsentence1\tsentence2\tpromptID\tpairID\tgenre\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5"
            "\tsentence1_tokenized\tsentence2_tokenized\tmatch",
            "en\tentailment\t\t\t\t\tA dog runs.\tAn animal moves.\t1\t1\tfacetoface\t\t\t\t\t\tA dog\tAn animal\tTrue",
            "en\tcontradiction\t\t\t\t\tIt rains.\tIt is dry.\t2\t2\tfacetoface\t\t\t\t\t\tIt\tIt\tTrue",
        ),
        "classification",
        NLI,
    ),
    Published("XNLI on the hub, a language", "xnli.parquet", parquet(HUB_NLI, NLI_CLASSES), "classification", PAIR),
    Published(
        "XNLI on the hub, all languages",
        "xnli_all.parquet",
        parquet(
            [
                {
                    "premise": {"en": "A dog runs.", "de": "Ein Hund rennt."},
                    "hypothesis": {"language": ["en", "de"], "translation": ["An animal.", "Ein Tier."]},
                    "label": 0,
                }
            ]
        ),
        "classification",
        {},
        "premise.en",
    ),
    Published("SciTail, tsv form on the hub", "scitail.parquet", parquet(HUB_NLI), "classification", BY_NUMBER),
    Published(
        "IMDB", "imdb.parquet", parquet(REVIEWS, {"label": ["neg", "pos"]}), "classification", {"texts": FILMS["texts"]}
    ),
    Published("AG News", "ag_news.parquet", parquet(REVIEWS), "classification", FILMS),
    Published("Yelp polarity, shards", "yelp", shards(REVIEWS), "classification", FILMS),
    Published(
        "Amazon polarity",
        "amazon_polarity.parquet",
        parquet([{"label": row["label"], "title": "Hm", "content": row["text"]} for row in REVIEWS]),
        "classification",
        FILMS,
    ),
    Published(
        "TREC, two kinds of labels",
        "trec.parquet",
        parquet([{"text": "Who ran?", "coarse_label": 3, "fine_label": 28}]),
        "classification",
        {},
        "coarse_label",
    ),
    Published(
        "BoolQ",
        "boolq.jsonl",
        lines(QUESTIONS),
        "classification",
        {
            "texts": ("Is grass green?", "Is coal white?"),
            "pairs": ("Grass is green.", "Coal is black."),
            "columns": ("question", "passage", "answer"),
        },
    ),
    Published(
        "go_emotions, several labels",
        "go_emotions.parquet",
        parquet(
            [{"text": "a fine film", "labels": [3, 17], "id": "x"}, {"text": "a dull film", "labels": [2], "id": "y"}]
        ),
        "probe",
        {"texts": FILMS["texts"], "target_column": None},
    ),
    # ---- a text for a text ----
    Published(
        "WMT16 on the hub",
        "wmt16.parquet",
        parquet([{"translation": {"en": "yes", "ro": "da"}}]),
        "wmt16-en-ro",
        {"sources": ("translate English to Romanian: yes",), "targets": (("da",),)},
    ),
    Published(
        "OPUS books, the direction not said",
        "opus_books.parquet",
        parquet([{"id": "1", "translation": {"en": "yes", "fr": "oui"}}]),
        "seq2seq",
        {},
        "--source translation.en --target translation.fr",
    ),
    Published(
        "CNN/DailyMail",
        "cnn_dailymail.parquet",
        parquet([{"article": "It rained all day.", "highlights": "Rain .", "id": "1"}]),
        "seq2seq",
        {"sources": ("It rained all day.",), "targets": (("Rain .",),)},
    ),
    Published(
        "XSum",
        "xsum.jsonl.gz",
        packed([{"document": "It rained all day.", "summary": "Rain.", "id": "1"}], gzip.compress),
        "seq2seq",
        {"sources": ("It rained all day.",), "targets": (("Rain.",),)},
    ),
    Published(
        "SAMSum",
        "samsum.json",
        array([{"id": "1", "dialogue": "A: Hi\r\nB: Hi", "summary": "They greet."}]),
        "seq2seq",
        {"sources": ("A: Hi\r\nB: Hi",), "targets": (("They greet.",),)},
    ),
    Published(
        "DART as published",
        "dart-v1.1.1-full-dev.json",
        array([{**DART, "annotations": [{"source": "WikiSQL", "text": "Ann, 9, has a cat."}]}]),
        "dart",
        TRIPLES,
    ),
    Published(
        "DART on the hub",
        "dart.parquet",
        parquet([{**DART, "annotations": {"source": ["WikiSQL"], "text": ["Ann, 9, has a cat."]}}]),
        "seq2seq",
        TRIPLES,
    ),
    Published(
        "E2E",
        "e2e.csv",
        text("mr,ref", '"name[Aromi], food[Italian]","Aromi serves Italian food, it says."'),
        "seq2seq",
        {"sources": ("name[Aromi], food[Italian]",), "targets": (("Aromi serves Italian food, it says.",),)},
    ),
    Published(
        "CommonGen",
        "common_gen.parquet",
        parquet([{"concept_set_idx": 0, "concepts": ["dog", "run"], "target": "A dog runs."}]),
        "seq2seq",
        {"sources": ("dog run",), "targets": (("A dog runs.",),)},
    ),
    # ---- prompts and what follows ----
    Published("Alpaca", "alpaca_data.json", array(ALPACA), "completion", ALPACA_READ),
    Published(
        "Alpaca on the hub, as a probe",
        "alpaca.parquet",
        parquet([{**row, "text": "Below is an instruction."} for row in ALPACA]),
        "probe",
        {"texts": ALPACA_READ["prompts"], "targets": ("Red", "3"), "text_column": "instruction + input"},
    ),
    Published(
        "Dolly",
        "dolly.jsonl",
        lines([{"instruction": "Who?", "context": "Ann ran.", "response": "Ann", "category": "closed_qa"}]),
        "completion",
        {"prompts": ("Who?\n\nAnn ran.",), "completions": (("Ann",),)},
    ),
    Published(
        "OpenOrca",
        "orca.parquet",
        parquet([{"id": "1", "system_prompt": "Be brief.", "question": "Who?", "response": "Ann"}]),
        "completion",
        {"prompts": ("Be brief.\n\nWho?",), "completions": (("Ann",),)},
    ),
    Published(
        "GSM8K",
        "gsm8k.jsonl",
        lines([{"question": "1 + 1?", "answer": "It is 2.\n#### 2"}]),
        "completion",
        {"prompts": ("1 + 1?",), "completions": (("It is 2.\n#### 2",),)},
    ),
    Published(
        "SQuAD on the hub",
        "squad.parquet",
        parquet(SQUAD),
        "completion",
        {
            "prompts": ("The tower of Pisa leans.\n\nWhat leans?",),
            "completions": (("The tower", "The tower of Pisa"),),
        },
    ),
    Published(
        "SQuAD 1.1 as published",
        "train-v1.1.json",
        array(
            {
                "version": "1.1",
                "data": [
                    {
                        "title": "Pisa",
                        "paragraphs": [
                            {
                                "context": "The tower leans.",
                                "qas": [
                                    {
                                        "id": "1",
                                        "question": "What?",
                                        "answers": [{"text": "The tower", "answer_start": 0}],
                                    }
                                ],
                            }
                        ],
                    }
                ],
            }
        ),
        "completion",
        {"prompts": ("The tower leans.\n\nWhat?",), "completions": (("The tower",),)},
    ),
    Published("CoQA on the hub", "coqa.parquet", parquet(COQA), "completion", COQA_READ),
    Published(
        "CoQA on the hub, by its task",
        "coqa_task.jsonl.xz",
        packed(COQA, lzma.compress),
        "coqa",
        {"completions": COQA_READ["completions"], "columns": ("story", "questions", "answers.input_text")},
    ),
    Published("CoQA with the answers of others", "coqa_others.parquet", parquet(COQA_OTHERS), "completion", COQA_READ),
    Published(
        "CoQA with the answers of others, by its task",
        "coqa_others.jsonl",
        packed(COQA_OTHERS, bytes),
        "coqa",
        {"completions": (("Ann",), ("a cat", "the cat")), "prompts": COQA_READ["prompts"], "last_turn": (False, True)},
    ),
    Published(
        "CoQA as published",
        "coqa-dev-v1.0.json",
        array(
            {
                "version": "1.0",
                "data": [
                    {
                        "source": "wikipedia",
                        "id": "1",
                        "filename": "x.txt",
                        "story": "Ann has a cat.",
                        "questions": [
                            {"input_text": "Who has it?", "turn_id": 1},
                            {"input_text": "What?", "turn_id": 2},
                        ],
                        "answers": [
                            {"input_text": "Ann", "span_start": 0, "span_end": 3, "span_text": "Ann", "turn_id": 1},
                            {
                                "input_text": "a cat",
                                "span_start": 8,
                                "span_end": 13,
                                "span_text": "a cat",
                                "turn_id": 2,
                            },
                        ],
                        "name": "x.txt",
                        "additional_answers": {
                            "0": [{"input_text": "Ann!", "turn_id": 1}, {"input_text": "her cat", "turn_id": 2}]
                        },
                    }
                ],
            }
        ),
        "coqa",
        {"completions": (("Ann", "Ann!"), ("a cat", "her cat")), "prompts": COQA_READ["prompts"]},
    ),
    Published(
        "ShareGPT",
        "sharegpt.json",
        array([{"id": "x", "conversations": [{"from": who, "value": said} for who, said in TURNS]}]),
        "completion",
        CHAT_READ,
    ),
    Published(
        "UltraChat 200k",
        "ultrachat.parquet",
        parquet([{"prompt": "Hello", "prompt_id": "1", "messages": CHAT}]),
        "completion",
        CHAT_READ,
    ),
    Published(
        "preferences (chosen and rejected)",
        "hh-rlhf.jsonl.gz",
        packed([{"chosen": "\n\nHuman: Hi", "rejected": "\n\nHuman: Ho"}], gzip.compress),
        "completion",
        {},
        "chosen, rejected",
    ),
    # ---- several choices ----
    Published(
        "HellaSwag",
        "hellaswag_val.jsonl",
        lines(
            [
                {
                    "ind": 24,
                    "activity_label": "Roof shingle removal",
                    "ctx_a": "A man is sitting on a roof.",
                    "ctx_b": "he",
                    "ctx": "A man is sitting on a roof. he",
                    "split": "val",
                    "split_type": "indomain",
                    "label": 1,
                    "endings": ["is using wrap.", "is ripping tiles off."],
                    "source_id": "activitynet~v_-JhWjGDPHMY",
                }
            ]
        ),
        "multiple-choice",
        {
            "prompts": ("A man is sitting on a roof. he",),
            "choices": (("is using wrap.", "is ripping tiles off."),),
            "right": (1,),
        },
    ),
    Published("ARC on the hub", "arc.parquet", parquet(ARC), "multiple-choice", HOT),
    Published(
        "ARC as published",
        "ARC-Easy-Dev.jsonl",
        lines(
            [
                {
                    "id": "q1",
                    "question": {
                        "stem": "What is hot?",
                        "choices": [{"text": "ice", "label": "A"}, {"text": "fire", "label": "B"}],
                    },
                    "answerKey": "B",
                }
            ]
        ),
        "multiple-choice",
        HOT,
    ),
    Published(
        "OpenBookQA",
        "openbookqa.parquet",
        parquet(
            [
                {
                    "id": "1",
                    "question_stem": "What is hot?",
                    "choices": {"text": ["ice", "fire"], "label": ["A", "B"]},
                    "answerKey": "B",
                }
            ]
        ),
        "multiple-choice",
        HOT,
    ),
    Published(
        "PIQA",
        "piqa.parquet",
        parquet([{"goal": "Make tea", "sol1": "Boil water.", "sol2": "Freeze it.", "label": 0}]),
        "multiple-choice",
        {"prompts": ("Make tea",), "choices": (("Boil water.", "Freeze it."),), "right": (0,)},
    ),
    Published(
        "COPA",
        "copa.jsonl",
        lines(
            [
                {
                    "premise": "The man broke his toe.",
                    "choice1": "He got a hole in his sock.",
                    "choice2": "He dropped a hammer.",
                    "question": "cause",
                    "label": 1,
                    "idx": 0,
                }
            ]
        ),
        "multiple-choice",
        {
            "prompts": ("The man broke his toe because",),
            "choices": (("he got a hole in his sock.", "he dropped a hammer."),),
            "right": (1,),
        },
    ),
    Published(
        "WinoGrande",
        "winogrande.jsonl",
        lines(
            [
                {
                    "qID": "1",
                    "sentence": "Ann, not Eve, ran as _ was late.",
                    "option1": "Ann",
                    "option2": "Eve",
                    "answer": "1",
                }
            ]
        ),
        "multiple-choice",
        {"prompts": ("Ann, not Eve, ran as ",), "choices": (("Ann was late.", "Eve was late."),), "right": (0,)},
    ),
    Published(
        "MMLU",
        "mmlu.parquet",
        parquet([{"question": "1 + 1?", "subject": "algebra", "choices": ["1", "2", "0", "3"], "answer": 1}]),
        "multiple-choice",
        {"prompts": ("1 + 1?",), "choices": (("1", "2", "0", "3"),), "right": (1,)},
    ),
    Published(
        "Social IQa",
        "social_iqa.parquet",
        parquet(
            [
                {
                    "context": "Ann ran.",
                    "question": "Why?",
                    "answerA": "late",
                    "answerB": "sad",
                    "answerC": "ill",
                    "label": "3",
                }
            ]
        ),
        "multiple-choice",
        {"prompts": ("Ann ran.\n\nWhy?",), "choices": (("late", "sad", "ill"),), "right": (2,)},
    ),
    Published(
        "RACE",
        "race.parquet",
        parquet(
            [
                {
                    "example_id": "1",
                    "article": "Ann ran.",
                    "answer": "B",
                    "question": "Who?",
                    "options": ["Eve", "Ann", "Tom", "Bob"],
                }
            ]
        ),
        "multiple-choice",
        {"prompts": ("Ann ran.\n\nWho?",), "choices": (("Eve", "Ann", "Tom", "Bob"),), "right": (1,)},
    ),
    # ---- plain text ----
    Published(
        "WikiText",
        "wikitext.parquet",
        parquet([{"text": " = A = \n"}, {"text": "b"}]),
        "language-model",
        {"texts": (" = A = \n", "b")},
    ),
    Published(
        "C4",
        "c4-train.00000-of-01024.json.gz",
        packed([{"text": "a", "timestamp": "2019-04-25T12:57:54Z", "url": "u"}], gzip.compress),
        "language-model",
        {"texts": ("a",)},
    ),
    Published(
        "Wikipedia",
        "wikipedia.parquet",
        parquet([{"id": "1", "url": "u", "title": "T", "text": "a"}]),
        "language-model",
        {"texts": ("a",)},
    ),
    Published(
        "The Pile",
        "00.jsonl.zst",
        packed([{"text": "a", "meta": {"pile_set_name": "Pile-CC"}}], zstd),
        "language-model",
        {"texts": ("a",)},
    ),
    Published(
        "OSCAR-like lines",
        "oscar.jsonl.bz2",
        packed([{"id": 0, "text": "a"}], bz2.compress),
        "language-model",
        {"texts": ("a",)},
    ),
)
"""All of them."""
