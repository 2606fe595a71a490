"""Lines that extend others, groups, data of another scale; and the project's own grids are the published ones."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from ahead import CHANGED, GROWN, NEW, REWORDED

from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.inheritance import chain, resolve, scale_options, with_data
from leap_repro.pipeline.reading import as_yaml, project_files, read_config, resolved

FIGURES = Path(__file__).resolve().parents[3] / "figures/miniature"
MODELS = ["qwen2.5-0.5b-mini", "llama3.2-3b-mini"]


def add(config, name, **line):
    """One more line, as a file of a user's would add it."""
    config["methods"][name] = line
    return config


def grid_of(config, *lines):
    """The miniature with a default grid of these lines and no other grid."""
    scale = config["scales"]["miniature"]
    scale |= {"methods": list(lines), "extended": []}
    del scale["evidence"]
    return config


def test_a_line_takes_over_all_that_it_does_not_say(config):
    study = read_study(add(config, "mine", extends="leap-from-admm", options={"tau_end": 0.5}))
    mine, base, leap = (study.methods[name] for name in ("mine", "leap-from-admm", "leap"))
    assert (mine.module, mine.warm_start, mine.sparsities) == ("leap", "admm", ("0.6",))
    assert base.options == leap.options
    assert mine.options.model_dump() == leap.options.model_dump() | {"tau_end": 0.5}


def test_label_changes_and_groups_are_each_lines_own(config):
    study = read_study(add(config, "mine", extends="leap-cosine"))
    mine = study.methods["mine"]
    assert (mine.label, mine.changes, mine.variant_of) == ("mine", "", None)
    assert "mine" not in study.grid_methods("evidence")


def test_a_line_with_changes_is_a_variant_of_the_one_that_it_extends_or_that_it_names(config):
    study = read_study(add(config, "mine", extends="leap", changes="nothing much"))
    assert study.methods["mine"].variant_of == "leap"
    assert study.methods["admm+recover"].variant_of == "leap", "though it extends wanda+recover"
    assert study.methods["sparsegpt+optima"].variant_of is None, "it has no changes"


def test_null_takes_a_start_away(config):
    assert read_study(config).methods["leap-cold"].warm_start is None


def test_a_variants_own_option_wins_over_its_bases_at_the_scale(config):
    study = read_study(add(config, "mine", extends="leap", options={"steps": 300}))
    assert study.methods["leap"].options.steps == 500, "the miniature's"
    assert study.methods["mine"].options.steps == 300
    assert study.methods["mine"].options.learning_rate == 3e-3, "the miniature's, which it takes over"


def test_options_at_a_scale_stand_in_the_line_and_the_scale_has_the_last_word(config):
    add(config, "mine", extends="leap", options={"steps": 300}, at={"miniature": {"steps": 200}, "paper": {"steps": 9}})
    assert read_study(config).methods["mine"].options.steps == 200
    assert read_study(config | {"scale": "paper"}).methods["mine"].options.steps == 9
    assert read_study(config | {"scale": "open"}).methods["mine"].options.steps == 300
    config["scales"]["miniature"]["options"]["mine"] = {"steps": 100}
    assert read_study(config).methods["mine"].options.steps == 100
    assert scale_options(config, "paper")["mine"] == {"steps": 9}


def test_a_scale_says_of_a_group_what_holds_for_each_of_its_lines(config):
    scale = config["scales"]["miniature"]
    scale["options"] |= {"schedules": {"steps": 40}, "leap-cosine": {"held_out_evaluations": 0}}
    study = read_study(config)
    assert [study.methods[name].options.steps for name in ("leap-cosine", "leap-tau-to-2", "leap-hard")] == [
        40,
        40,
        500,
    ]
    assert not study.methods["leap-cosine"].is_scored_held_out


def test_models_and_gpus_are_taken_over_until_a_line_says_otherwise(config):
    add(config, "mine", extends="leap-cosine")
    add(config, "yours", extends="leap", gpus=1)
    scale = config["scales"]["miniature"]
    scale["extended"] = [*scale["extended"], "mine", "yours"]
    scale["options"]["mine"], scale["options"]["yours"] = {"steps": 40}, {"steps": 50, "micro_batch_size": 4}
    scale["options"]["leap"] |= {"micro_batch_size": 4}
    scale["gpus"] = {"leap": 2}
    study = read_study(grid_of(config, "dense", "mine", "yours"))
    assert {cell.model for cell in study.cells() if cell.method == "mine"} == set(MODELS)
    assert {cell.model for cell in study.cells() if cell.method == "yours"} == set(study.models)
    assert [study.methods[name].gpus for name in ("leap", "mine", "yours")] == [2, 2, 1]


def test_one_place_adds_a_variant_to_a_grid_behind_the_others_of_its_group(config):
    before = read_study(config)
    line = {"extends": "leap", "label": "LEAP (tau to 1)", "changes": "…", "groups": ["schedules"], "sparsities": [0.6]}
    study = read_study(add(config, "leap-tau-to-1", **line, options={"tau_end": 1.0}))
    found, known = study.grid_methods("evidence"), before.grid_methods("evidence")
    place = known.index("leap-no-annealing") + 1
    assert found == [*known[:place], "leap-tau-to-1", *known[place:]]
    assert {cell.model for cell in study.cells(grid="evidence") if cell.method == "leap-tau-to-1"} == set(MODELS)


@pytest.fixture
def examples():
    """What the page on extending shows and does not run: a variant, and a line on other text."""
    page = (FIGURES.parents[1] / "docs/extending.md").read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]


def test_the_pages_line_on_other_text_reads_it(config, examples):
    _, other_text = examples
    config["methods"] |= other_text["methods"]
    config["scales"]["miniature"]["data"]["texts"] |= other_text["scales"]["miniature"]["data"]["texts"]
    config["scales"]["miniature"]["extended"].append("admm-letters")
    study = read_study(config)
    assert study.methods["admm-letters"].tokens == "calibration-letters"
    assert study.data["calibration-letters"]["path"] == "letters.txt"


def test_the_example_of_the_page_is_a_variant_like_the_others(config, examples):
    config["methods"] |= examples[0]["methods"]
    line = read_study(config).methods["leap-tau-to-1"]
    assert (line.variant_of, line.options.tau_end, line.options.steps) == ("leap", 1.0, 500)
    assert read_study(config | {"scale": "open"}).methods["leap-tau-to-1"].options.steps == 1000
    assert "leap-tau-to-1" in read_study(config).grid_methods("evidence")


def test_data_of_another_scale_are_taken_over_role_by_role(config):
    raw = {"scales": {"a": {"data": {"calibration": 1, "tasks": 2}}, "b": {"data": {"extends": "a", "tasks": 3}}}}
    assert with_data(raw)["scales"]["b"]["data"] == {"calibration": 1, "tasks": 3}
    assert config["scales"]["open"]["data"] == config["scales"]["paper"]["data"]


def test_data_of_another_scale_are_overlaid_key_by_key_but_for_another_source():
    paper = {"perplexity": {"source": "hub", "id": "a/b", "expect": {"documents": 3}}, "tasks": {"source": "hub"}}
    own = {"extends": "paper", "perplexity": {"expect": {"documents": 4}}, "tasks": {"source": "path", "path": "p"}}
    raw = {"scales": {"paper": {"data": paper}, "mine": {"data": own}}}
    assert with_data(raw)["scales"]["mine"]["data"] == {
        "perplexity": {"source": "hub", "id": "a/b", "expect": {"documents": 4}},
        "tasks": {"source": "path", "path": "p"},
    }


def test_the_models_that_open_shares_with_the_paper_are_the_same(config):
    paper, free = (config["scales"][name]["models"] for name in ("paper", "open"))
    shared = set(paper) & set(free)
    assert shared == {"qwen2.5-0.5b"}
    assert all(paper[name] == free[name] for name in shared)


MISTAKES = [
    ({"extends": "lepa"}, "methods.mine.extends is 'lepa'; it must be one of ["),
    ({"hardens": "lepa"}, "methods.mine.hardens is 'lepa'; it must be one of ["),
    ({"extends": "mine"}, "methods.mine.extends is 'mine'; mine extends mine is circular"),
    ({"extends": "leap", "groups": ["wanda"]}, "methods.mine.groups names 'wanda', which is a method"),
    ({"extends": "leap", "groups": ["a/b"]}, "a/b"),
    ({"extends": "leap", "at": {"mini": {}}}, "methods.mine.at names the unknown scale 'mini'; allowed are ["),
    ({"extends": "leap", "at": {"miniature": {"step": 3}}}, "methods.mine.options has the unknown key 'step'"),
    ({"extends": "leap", "options": {"step": 3}}, "methods.mine.options has the unknown key 'step'"),
    (
        {"extends": "leap", "options": {"steps": 0}, "at": {"miniature": {"steps": 5}}},
        "methods.mine.options.steps is 0",
    ),
    ({"extends": "leap", "colour": 1}, "methods.mine has the unknown key 'colour'"),
    ({"extends": 3}, "methods.mine.extends is 3"),
    ({"label": "Mine"}, "methods.mine lacks the key 'module'"),
    # what hardens another's logits
    (
        {"hardens": "wanda"},
        "methods.mine.hardens is 'wanda'; it must be a method whose training writes logits: ['leap'",
    ),
    ({"hardens": "elsa"}, "'elsa'; it must be a method whose training writes logits"),
    (
        {"hardens": "leap-threshold", "hardening": "exact"},
        "'leap-threshold'; it must be a method whose training writes",
    ),
    ({"hardens": "leap"}, "'leap', whose logits are hardened by the rule 'exact' already; give it another `hardening`"),
    (
        {"hardens": "leap", "hardening": "threshold", "options": {"steps": 9}},
        "'leap', which is trained differently; leave out",
    ),
    ({"hardens": "leap", "hardening": "threshold", "warm_start": "admm"}, "leave out the differences: ['starts']"),
    (
        {"hardens": "leap-hard", "hardening": "threshold", "sparsities": [0.5]},
        "'leap-hard', which does not run at every sparsity of mine",
    ),
]


@pytest.mark.parametrize(("line", "sentence"), MISTAKES, ids=[sentence for _, sentence in MISTAKES])
def test_a_mistake_of_a_line_is_told_in_one_sentence(config, refused, line, sentence):
    with refused(sentence):
        read_study(add(config, "mine", **line))


def test_a_longer_circle_is_told_with_its_links(config, refused):
    add(config, "one", extends="two")
    add(config, "two", extends="three")
    with refused("extends is 'one'; one extends two extends three extends one is circular"):
        read_study(add(config, "three", extends="one"))


def test_data_of_an_unknown_scale_are_refused(config, refused):
    config["scales"]["open"]["data"] = {"extends": "papers"}
    with refused("scales.open.data.extends is 'papers'; it must be a scale with data of its own: ["):
        read_study(config)


def test_an_unknown_name_is_refused_with_the_groups_that_there_are(config, refused):
    config["scales"]["miniature"]["extended"] = ["schedule"]
    with refused(
        "scales.*.extended names the unknown method 'schedule'; allowed are [", "and the groups [", "schedules"
    ):
        read_study(config)


def test_two_lines_that_train_the_same_are_refused_in_one_grid(config, refused):
    add(config, "mine", extends="leap", groups=["leap-readings"], hardening="threshold")
    sentence = "methods.mine trains the same as leap: module, options and starts are the same; leave one of them out"
    with refused(sentence, "or set `hardens: leap`"):
        read_study(config)
    config["methods"]["mine"]["hardens"] = config["methods"]["mine"].pop("extends")
    assert read_study(config).methods["mine"].hardens == "leap"


def test_what_trains_the_same_at_other_sparsities_or_on_other_models_is_no_second_training(config):
    add(config, "mine", extends="leap", groups=["leap-readings"], sparsities=[0.7])
    read_study(config)
    add(config, "mine", extends="leap")
    config["scales"]["miniature"]["only_models"] = {"leap": MODELS[:1], "mine": MODELS[1:]}
    read_study(grid_of(config, "leap", "mine"))


def test_what_only_hardens_is_its_bases_training_and_is_not_scored_itself(config):
    study = read_study(config)
    line, base = study.methods["patch-tile-threshold"], study.methods["patch-tile"]
    assert (line.hardens, line.hardening, base.hardening) == ("patch-tile", "threshold", "exact")
    assert line.training == base.training
    cell = next(cell for cell in study.cells(grid="extended") if cell.method == "leap-threshold")
    assert study.pruned(cell).path == cell.path.replace("leap-threshold", "leap")
    assert not study.methods["leap-threshold"].is_scored_held_out
    pruned = study.pruned_cells(grid="extended")
    assert len(pruned) == len(set(pruned)) == len(study.cells(grid="extended")) - 4, "two lines on two models"


def test_a_variant_that_a_scale_does_not_run_may_clash_with_the_options_of_its_base_there(config, refused):
    """Noise anew in each pass leaves nothing to sum in bfloat16."""
    paper = config["scales"]["paper"]
    paper["options"]["leap"] |= {"gradients_dtype": "bfloat16"}
    study = read_study(config | {"scale": "paper"})
    assert "leap-noise-per-pass" not in study.methods
    assert read_study(resolved(config, "paper")).methods == study.methods, "nor is it printed"
    assert study.methods["leap-cosine"].options.gradients_dtype == "bfloat16"
    paper["extended"] = ["leap-noise-per-pass"]
    with refused(
        "methods.leap-noise-per-pass.options.gradients_dtype is bfloat16; no gradients are summed with noise: forward"
    ):
        read_study(config | {"scale": "paper"})


def test_chains_start_at_the_first_base(config):
    assert chain("wanda+recover-lora", config["methods"]) == ["wanda+recover", "wanda+recover-lora"]
    assert chain("patch-tile-threshold", config["methods"]) == ["patch-tile", "patch-tile-threshold"]


@pytest.mark.parametrize("grid", ["", "extended", "evidence"])
def test_the_miniatures_cells_are_the_published_ones_in_their_order(study, grid):
    record = pd.read_parquet(FIGURES / grid / "results.parquet", columns=["model", "method", "sparsity_target", "seed"])
    published = list(dict.fromkeys(record.itertuples(index=False, name=None)))
    cells = [(cell.model, cell.method, float(cell.sparsity), cell.seed) for cell in study.cells(grid=grid)]
    same = [cell for cell in published if cell[1] not in GROWN]
    assert [cell for cell in cells if cell[1] not in NEW | GROWN] == same
    for name in GROWN & {method for _, method, _, _ in published}:
        ran = {cell for cell in published if cell[1] == name}
        assert ran < {cell for cell in cells if cell[1] == name}, f"{name} is no longer grown"
    assert not NEW & {method for _, method, _, _ in published}, "published: no longer new"


def test_labels_and_changes_are_the_published_ones(study):
    with (FIGURES / "extended/variants.csv").open(encoding="utf-8") as file:
        numbers = list(csv.DictReader(file))
    rows = [line.split(" | ") for line in (FIGURES / "extended/variants.md").read_text(encoding="utf-8").splitlines()]
    shown = [(row[0].removeprefix("| "), row[1], row[2]) for row in rows if len(row) > 5][2:]
    assert len(shown) == len(numbers)
    for row, words in zip(numbers, shown, strict=True):
        line = study.methods[row["method"]]
        assert (line.variant_of, float(row["sparsity_target"])) in [
            (row["variant_of"], float(s)) for s in line.sparsities
        ]
        same = words == (line.label, line.changes, study.methods[line.variant_of].label)
        assert same != (row["method"] in CHANGED | REWORDED), words


@pytest.mark.parametrize(
    ("scale", "counts"),
    [("miniature", [80, 377, 684]), ("paper", [80, 82, 265]), ("open", [64, 64])],
)
def test_grids_have_as_many_cells_as_ever(config, scale, counts):
    study = read_study(config | {"scale": scale})
    assert [len(study.cells(grid=grid)) for grid in study.grids] == counts


@pytest.mark.parametrize("scale", ["miniature", "paper", "open"])
def test_what_is_printed_is_the_same_configuration_and_reads_as_itself(config, scale):
    printed = yaml.safe_load(as_yaml(resolved(config, scale)))
    one, other = read_study(config | {"scale": scale}), read_study(printed)
    assert dict(other.methods) == dict(one.methods)
    assert [other.cells(grid=grid) for grid in other.grids] == [one.cells(grid=grid) for grid in one.grids]
    assert (other.models, other.data) == (one.models, one.data)
    assert resolve(printed)["methods"] == printed["methods"]
    assert not [name for name, line in printed["methods"].items() if "extends" in line or "at" in line]


def test_one_line_alone_is_printed_with_all_its_options(config, refused):
    found = resolved(config, "miniature", "leap-rate-1e-3")["methods"]
    assert list(found) == ["leap-rate-1e-3"]
    assert found["leap-rate-1e-3"]["options"]["learning_rate"] == 1e-3
    with refused("no method 'nope'"):
        resolved(config, "miniature", "nope")


def test_files_lie_over_one_another_in_the_order_of_their_names_and_the_users_over_all(tmp_path, refused):
    with refused("there is no config.yaml in"):
        read_config(project=tmp_path)
    (tmp_path / "config").mkdir()
    texts = {"config.yaml": "{scale: a, scales: {x: {seeds: [1, 2]}}}", "config/b.yaml": "{scale: b, preflight: stop}"}
    texts |= {"config/a.yaml": "{scale: c, scales: {x: {threads: 1}}}", "mine.yaml": "{scales: {x: {seeds: [3]}}}"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    names = [path.relative_to(tmp_path).as_posix() for path in project_files(tmp_path)]
    assert names == ["config.yaml", "config/a.yaml", "config/b.yaml"]
    found = read_config([tmp_path / "mine.yaml"], tmp_path)
    assert found == {"scale": "b", "preflight": "stop", "scales": {"x": {"seeds": [3], "threads": 1}}}


def test_a_newcomer_reads_no_more_than_two_hundred_lines(project):
    assert len((project / "config.yaml").read_text(encoding="utf-8").splitlines()) <= 200
