"""Whatever a configuration holds, it is a study or one sentence that names what was changed."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from odd import SINGLE, change, places, values
from outcomes import outcome

from leap_repro.pipeline.grid import Study, read_study
from leap_repro.pipeline.reading import project_files, read_config

VALUES = values(SINGLE, ["2:4", "wanda", "leap", {1}, {5: 1}])
PIECES = [b"\t", b"\n", b": ", b"- ", b"&a ", b"*a ", b"<<: ", b"{", b"\0", b"---\n", b"!!timestamp x ", b"!!python/x "]


def assert_study_or_sentence(config, changed):
    """A refusal has the last or the last but one name on the way to a changed place."""
    study, sentence = outcome(read_study, config)
    near = [[key for key in place if isinstance(key, str)][-2:] for place in changed]
    assert isinstance(study, Study) or any(name in sentence for names in near for name in names), (sentence, changed)


@pytest.mark.parametrize(("name", "most"), [("tiny", 1), ("tiny", 4), ("learned", 1), ("learned", 4)])
def test_a_small_configuration_with_a_few_odd_places(project, name, most):
    whole = yaml.safe_load((project / f"tests/config/{name}.yaml").read_text())

    @settings(derandomize=True, max_examples=400, deadline=None)
    @given(st.data())
    def hold(data):
        config = copy.deepcopy(whole)
        changed = []
        while len(changed) < most and any(True for _ in places(config)):
            changed.append(change(data, config, VALUES))
        assert_study_or_sentence(config, changed)

    hold()


def test_the_projects_own_configuration_with_an_odd_place(config):
    @settings(derandomize=True, max_examples=150, deadline=None)
    @given(st.data())
    def hold(data):
        odd = copy.deepcopy(config)
        assert_study_or_sentence(odd, [change(data, odd, VALUES)])

    hold()


def test_the_unchanged_configurations_are_studies(project, config):
    for name in ("tiny", "learned"):
        assert isinstance(read_study(yaml.safe_load((project / f"tests/config/{name}.yaml").read_text())), Study)
    assert isinstance(read_study(config), Study)


def assert_read_or_named(file):
    """A refusal names the file, or the key that extends what only another file has."""
    config, sentence = outcome(lambda: read_config(project=file.parent))
    assert isinstance(config, dict) or str(file) in sentence or "extends" in sentence


@pytest.mark.parametrize("text", [b"a: \0", b"a: !!timestamp x", b"a: b\tc\n\td: 1", b"a: !!int x", b"\xff"])
def test_a_file_that_is_not_yaml_for_one_of_its_readers_is_named(text, tmp_path):
    (tmp_path / "config.yaml").write_bytes(text)
    assert_read_or_named(tmp_path / "config.yaml")


def test_a_file_with_odd_characters_is_read_or_refused_by_name(project, tmp_path):
    (file,) = [path for path in project_files(project) if path.name == "config.yaml"]
    whole = file.read_bytes()
    odd = tmp_path / "config.yaml"
    pieces = st.binary(max_size=4) | st.sampled_from(PIECES)

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.integers(0, len(whole) - 1), st.integers(0, 3), pieces)
    def hold(start, taken, put):
        odd.write_bytes(whole[:start] + put + whole[start + taken :])
        assert_read_or_named(odd)

    hold()
