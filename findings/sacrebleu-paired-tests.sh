#!/usr/bin/env bash
# sacrebleu 2.6.0: PairedTest, the two significance tests behind --paired-ar and --paired-bs.
#
# Expected: approximate randomisation of two systems that differ in one sentence gives p = 1, since swapping that
# sentence leaves the difference as it is; and either test rejects about 5% of pairs of equally good systems at 0.05.
# Seen: a permutation counts only where its difference is greater than the observed one, so ties count as evidence.
# One sentence that differs gives p = 0.0005 of 2,000 trials, the least possible, where all sign flips give 1; so do
# three (all flips: 0.25), five (0.0625) and none at all. The bootstrap takes absolute differences before it
# subtracts their mean, which leaves one tail of the two: it calls 25 of 200 pairs of exchangeable systems different.
# Students that answer nearly alike, as two seeds of one strategy do, come out as significantly different.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check sacrebleu==2.6.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PYTHON'
import logging
from itertools import product

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

logging.getLogger("sacrebleu").setLevel(logging.ERROR)
draws = np.random.default_rng(0)
WORDS = np.array([f"w{number}" for number in range(200)])


def translations(references):
    """Each word of a reference is replaced in 3 of 10 cases."""
    changed = (np.where(draws.random(len(words)) < 0.3, draws.choice(WORDS, len(words)), words) for words in references)
    return [" ".join(words) for words in changed]


def p_value(test, metric, one, other, references, trials):
    systems = [("one", one), ("other", other)]
    _, results = PairedTest(systems, {"metric": metric()}, [references], test_type=test, n_samples=trials)()
    return next(column[1].p_value for name, column in results.items() if name != "System")


def over_all_flips(metric, one, other, references):
    """The exact p-value: every way to swap the sentences that differ; a tie is at least as extreme."""
    differing = [row for row, pair in enumerate(zip(one, other)) if pair[0] != pair[1]]
    found = []
    for flips in product((False, True), repeat=len(differing)):
        a, b = list(one), list(other)
        for row, flip in zip(differing, flips):
            if flip:
                a[row], b[row] = b[row], a[row]
        score = [metric().corpus_score(system, [references]).score for system in (a, b)]
        found.append(abs(score[0] - score[1]))
    return np.mean(np.array(found) >= found[0] - 1e-9)


words = [draws.choice(WORDS, 12) for _ in range(100)]
references = [" ".join(row) for row in words]
student = translations(words)
for better in (0, 1, 3, 5):
    other = references[:better] + student[better:]
    for metric in (BLEU, CHRF):
        found = p_value("ar", metric, student, other, references, trials=2000)
        exact = over_all_flips(metric, student, other, references)
        print(f"{better} of 100 sentences differ, {metric.__name__}: p = {found:.5f}, over all flips {exact:.4f}")
        assert found == 1 / 2001
        assert exact == min(1.0, 2.0 ** (1 - better))

PAIRS = 200
called = {"ar": 0, "bs": 0}
for _ in range(PAIRS):
    words = [draws.choice(WORDS, 12) for _ in range(60)]
    references = [" ".join(row) for row in words]
    pair = translations(words), translations(words)
    for test in called:
        called[test] += p_value(test, BLEU, *pair, references, trials=200) < 0.05
print(f"of {PAIRS} pairs of equally good systems, p < 0.05 in {called['ar']} (ar) and {called['bs']} (bs)")
assert called["ar"] <= 0.08 * PAIRS < 0.10 * PAIRS <= called["bs"]
print("unchanged: ties count as evidence, and the paired bootstrap at 0.05 errs in more than 10%")
PYTHON
