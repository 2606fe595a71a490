"""How task sets lie on disk between the stages: <set>/<split>.parquet in the originals' schemas, MMLU by subject.

What lm-eval reads of each set, and what a set must be so that its accuracy means something, is known here once: for
those who fetch sets, who score them, and who look before any job. pyarrow is imported where a file is opened: every
dry run looks at the forms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from leap_repro.errors import UserError, reason

TASKS = ("mmlu", "piqa", "arc_easy", "arc_challenge", "winogrande", "openbookqa")
MMLU = "mmlu_"


@dataclass(frozen=True)
class SetForm:
    """A set's splits (lm-eval's definitions name them, so each must be there), the one that is scored, its columns, the
    one that holds the key, and the keys there are: None where each question has its own, in choices.label."""

    splits: tuple[str, ...]
    scored: str
    columns: frozenset[str]
    key: str
    keys: frozenset[object] | None


_TRAINED = ("train", "validation")
_CHOSEN = ("answerKey", None)
FORMS = {
    "piqa": SetForm(_TRAINED, "validation", frozenset({"goal", "sol1", "sol2", "label"}), "label", frozenset({0, 1})),
    "winogrande": SetForm(
        _TRAINED, "validation", frozenset({"sentence", "option1", "option2", "answer"}), "answer", frozenset({"1", "2"})
    ),
    "openbookqa": SetForm((*_TRAINED, "test"), "test", frozenset({"question_stem", "choices", "answerKey"}), *_CHOSEN),
    "arc_easy": SetForm((*_TRAINED, "test"), "test", frozenset({"question", "choices", "answerKey"}), *_CHOSEN),
    "arc_challenge": SetForm((*_TRAINED, "test"), "test", frozenset({"question", "choices", "answerKey"}), *_CHOSEN),
    "mmlu": SetForm(
        ("dev", "test"), "test", frozenset({"question", "choices", "answer"}), "answer", frozenset({0, 1, 2, 3})
    ),
}


def stock_folder() -> Path:
    """Where the installed lm-eval keeps its task definitions."""
    found = find_spec("lm_eval")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("lm-eval, which is among the dependencies, is not installed")
    return Path(found.origin).parent / "tasks"


def stock_definition(name: str) -> Path:
    """The file of a stock task definition, named by its path below lm-eval's tasks; UserError if there is none, or if
    the name leads out of them."""
    folder = stock_folder().resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder) or path.suffix != ".yaml" or not path.is_file():
        raise UserError(f"task definition {name!r}: lm-eval has none of that name below its tasks")
    return path


def mmlu_subjects() -> list[str]:
    """The subjects of MMLU, by lm-eval's definitions."""
    found = (stock_folder() / "mmlu/default").glob(f"{MMLU}*.yaml")
    return sorted(path.stem.removeprefix(MMLU) for path in found)


def task_of(name: str) -> str:
    """The task that a set belongs to."""
    return "mmlu" if name.startswith(MMLU) else name


def check_forms(splits: dict[str, set[str]]) -> None:
    """UserError unless {set: its splits} has all six tasks, each with the splits that its definition names."""
    missing = sorted(set(TASKS) - {task_of(name) for name in splits})
    if missing:
        what = [name if name != "mmlu" else f"{MMLU}<subject>" for name in missing]
        raise UserError(f"task sets: {', '.join(what)} are missing; all six must be there, as <set>/<split>.parquet")
    for name, found in splits.items():
        form = FORMS.get(task_of(name))
        needed = form.splits if form else ()
        lacking = [split for split in needed if split not in found]
        if lacking:
            raise UserError(f"task set {name} has no split {lacking[0]!r}; it needs {list(needed)}")


def check_sets(files: Iterable[Path], further: Iterable[str] = ()) -> dict[str, int]:
    """{"<set>/<split>": rows} of the parquet files <set>/<split>.parquet, which are all sets of a study.

    `further` names tasks beyond the six. Raises UserError, naming set and file, for a set or split that is missing,
    a set that nothing defines, a file that is no parquet, lacks a column, or has no question or no key in what is
    scored.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(files):
        found.setdefault(path.parent.name, {})[path.stem] = path
    check_forms({name: set(splits) for name, splits in found.items()})
    known = (set(FORMS) - {"mmlu"}) | set(further)
    subjects = {f"{MMLU}{subject}" for subject in mmlu_subjects()}
    for name in found:
        if name not in known | subjects:
            raise UserError(
                f"task set {name} is unknown; the sets are {sorted(known)} and "
                f"{MMLU}<subject> with a subject of MMLU; another one needs an entry under data.tasks.further"
            )
    return {
        f"{name}/{split}": rows for name, splits in found.items() for split, rows in _check_set(name, splits).items()
    }


def _check_set(name: str, splits: dict[str, Path]) -> dict[str, int]:
    form = FORMS.get(task_of(name))
    rows = {split: _rows(path, form.columns if form else frozenset()) for split, path in splits.items()}
    if form is None:
        return rows
    if not rows[form.scored]:
        raise UserError(f"task set {name}: {form.scored}.parquet holds no question")
    for path in splits.values() if "choices" in form.columns else ():
        _check_choices(name, path, form)
    _check_keys(name, splits[form.scored], form)
    return rows


def _rows(path: Path, columns: frozenset[str]) -> int:
    """The rows of one file; UserError if it is no parquet or lacks a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = f"{path.parent.name}/{path.name}"
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"task file {name} is not readable parquet ({reason(error)})") from error
    missing = sorted(columns - set(file.schema_arrow.names))
    if missing:
        raise UserError(f"task file {name} lacks the columns {missing}")
    return file.metadata.num_rows


def _check_choices(name: str, path: Path, form: SetForm) -> None:
    """Choices as text, such as JSON that nobody has read, would be asked letter by letter."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pq.read_schema(path).field("choices").type
    of_struct = {kind.field(index).name: kind.field(index).type for index in range(kind.num_fields)}
    lists = [kind] if form.keys else [of_struct.get("text"), of_struct.get("label")]
    is_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not all(part is not None and any(fits(part) for fits in is_list) for part in lists):
        right = "a list of texts" if form.keys else "{text: [...], label: [...]}"
        column = f"the column choices of {path.name}"
        raise UserError(f"task set {name}: {column} is of type {kind}; it must be {right}")


def _check_keys(name: str, path: Path, form: SetForm) -> None:
    """A test split whose keys were held back (-1, an empty text) scores every model the same."""
    import pyarrow.parquet as pq

    needed = {form.key} if form.keys else {form.key, "choices"}
    for index, row in enumerate(pq.read_table(path, columns=sorted(needed)).to_pylist()):
        key = row[form.key]
        allowed = form.keys or set((row["choices"] or {}).get("label") or [])
        if key not in allowed:
            raise UserError(
                f"task set {name}: row {index} of {path.name} has {form.key} {key!r}, it must be one of "
                f"{sorted(allowed, key=str)}: questions without a key cannot be scored"
            )
