"""Changes the mathematics in thousands of small ways and counts the changes that no test notices.

    python tests/mutants/run.py [--sample N] [--seed N] [--workers N] [--again] [PATTERN ...]

mutmut makes the mutants that `[tool.mutmut]` of pyproject.toml asks for, in the folder mutants/, and runs on each the
tests that reach the changed function. A sample is drawn by its seed, over all or over those whose name fits a pattern
(`anglekit.geometry.angles.*`). What was killed is kept: started again, a run goes on with what is left and what has
changed, and tries survivors again. Those that survivors.md lists change nothing that could be noticed.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTED = Path(__file__).with_name("survivors.md")
LEAST_KILLED = 0.9
#: Where mutmut keeps which tests reach which function.
TESTS_BY_FUNCTION = Path("mutants/mutmut-stats.json")


def generated() -> dict[str, Path]:
    """Make the mutants; return the file of each one's verdict by its name."""
    from mutmut import __main__ as mutmut

    mutmut.set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    with mutmut.CatchOutput():
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.create_mutants(1)
    forget_stale_tests()
    sources = {Path("mutants") / f"{path}.meta" for path in mutmut.walk_mutatable_files()}
    return {name: file for file in sorted(sources) if file.exists() for name in verdicts_of(file)}


def forget_stale_tests() -> None:
    """Have the tests of each function found anew where there are functions that no test has been run for."""
    from mutmut.state import state

    if TESTS_BY_FUNCTION.exists():
        before = json.loads(TESTS_BY_FUNCTION.read_text(encoding="utf-8"))["function_hashes"]
        if state().current_function_hashes.keys() - before.keys():
            TESTS_BY_FUNCTION.unlink()


def verdicts_of(file: Path) -> dict[str, str]:
    """Return the verdict of each mutant of a file: killed, survived, timeout, no tests, not checked and others."""
    from mutmut.stats import status_by_exit_code

    codes = json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    return {name: status_by_exit_code[code] for name, code in codes.items()}


def change(name: str) -> str:
    """Return the function that a mutant changes, and its changed line."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    lines = get_diff_for_mutant(name).splitlines()
    changed = next((line[1:].strip() for line in lines if line.startswith("+") and not line.startswith("+++")), "")
    function = name.rpartition("__mutmut_")[0].replace("x_", "", 1).replace("xǁ", "").replace("ǁ", ".")
    return f"{function}: {changed}"


def report(chosen: list[str], files: dict[str, Path]) -> int:
    """Print what was killed by module, and the survivors; 1 where too few were killed."""
    verdicts: dict[str, str] = {}
    for file in sorted({files[name] for name in chosen}):
        verdicts |= verdicts_of(file)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    listed = LISTED.read_text(encoding="utf-8") if LISTED.exists() else ""
    survivors = []
    for name in chosen:
        verdict = verdicts[name]
        if verdict in ("survived", "no tests"):
            line = change(name)
            verdict = "listed" if f"`{line}`" in listed else verdict
            survivors.append((verdict, name, line))
        counts[str(files[name].relative_to("mutants")).removesuffix(".py.meta")][verdict] += 1
    for verdict, name, line in sorted(survivors):
        print(f"{verdict}: {name}\n    {line}")
    total = sum(counts.values(), Counter[str]())
    columns = ("killed", "timeout", "survived", "no tests", "listed", "not checked")
    print(f"{'':44}", *(f"{column:>11}" for column in columns))
    for module, found in [*sorted(counts.items()), ("all", total)]:
        print(f"{module:44}", *(f"{found[column]:11}" for column in columns))
    decided = sum(total.values()) - total["not checked"]
    share = (total["killed"] + total["timeout"]) / max(1, decided)
    print(f"{share:.1%} of {decided} are killed")
    return int(share < LEAST_KILLED)


def main() -> int:
    """Draw, run and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("patterns", nargs="*", help="names of mutants")
    parser.add_argument("--sample", type=int, help="how many; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    os.chdir(ROOT)
    files = generated()
    names = [name for name in files if not given.patterns or any(fnmatch.fnmatch(name, one) for one in given.patterns)]
    if given.sample is not None:
        # By a hash of each name, so that a mutant that comes or goes leaves the others of the sample.
        names = sorted(names, key=lambda name: hashlib.sha256(f"{given.seed} {name}".encode()).digest())[: given.sample]
    verdicts = {
        name: verdict for file in {files[name] for name in names} for name, verdict in verdicts_of(file).items()
    }
    if left := [name for name in names if verdicts[name] not in ("killed", "timeout")]:
        if any(verdicts[name] == "no tests" for name in left):
            TESTS_BY_FUNCTION.unlink(missing_ok=True)  # tests that were there before may reach them now
        if not TESTS_BY_FUNCTION.exists():
            find_tests(left[0])
        done = run_mutmut("run", "--max-children", str(given.workers), *left)
        if done.returncode:
            return done.returncode
    return report(names, files)


def find_tests(name: str) -> None:
    """Find which tests reach which function, and add the others of their files.

    What a fixture of a module calls is seen in the first test alone, though all of them look at the result.
    """
    run_mutmut("print-time-estimates", name, stdout=subprocess.DEVNULL).check_returncode()
    found = json.loads(TESTS_BY_FUNCTION.read_text(encoding="utf-8"))
    by_file = defaultdict(list)
    for test in found["duration_by_test"]:
        by_file[test.partition("::")[0]].append(test)
    for function, tests in found["tests_by_mangled_function_name"].items():
        files = sorted({test.partition("::")[0] for test in tests})
        found["tests_by_mangled_function_name"][function] = [test for file in files for test in by_file[file]]
    TESTS_BY_FUNCTION.write_text(json.dumps(found), encoding="utf-8")


def run_mutmut(*arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the program that lies beside this interpreter."""
    own = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([Path(sys.executable).with_name("mutmut"), *arguments], env=own, stdout=stdout, check=False)


if __name__ == "__main__":
    raise SystemExit(main())
