"""A killed training goes on from its last whole checkpoint to the bits of an undisturbed run, for every gate."""

from __future__ import annotations

from fractions import Fraction

import pyarrow as pa
import pytest
import torch
from few_bits import FEW_BITS

from leap_repro.errors import UserError
from leap_repro.prune.job import Job
from leap_repro.prune.learned import checkpoint
from leap_repro.prune.methods import leap, maskllm, patch
from leap_repro.store.atomic import write_json
from leap_repro.store.sealed import read_sealed, write_sealed

OPTIONS = {"steps": 40, "batch_size": 2, "micro_batch_size": 1}
METHODS = {
    "leap": (leap, leap.Options(**OPTIONS), "0.4"),
    "leap in few bits": (leap, leap.Options(**OPTIONS, **FEW_BITS), "0.4"),
    "maskllm": (maskllm, maskllm.Options(**OPTIONS), "0.5"),
    "patch": (patch, patch.Options(**OPTIONS, learn="joint", tile=8), "0.4"),
}


class Killed(Exception):
    """What ends a training from outside in these tests."""


@pytest.fixture(params=METHODS)
def build(request, tiny_llama, tokens):
    """() -> a fresh trainer of one method on a one-block model."""
    module, options, sparsity = METHODS[request.param]

    def make():
        return module.trainer(Job(tiny_llama(blocks=1), options, Fraction(sparsity), 3, tokens[:8]))

    return make


def kill_at_step(trainer, step):
    """Let the model die in the second forward pass of a step (two forward passes a step)."""
    passes = []

    def count(*_):
        passes.append(1)
        if len(passes) == 2 * step + 2:
            raise Killed

    trainer.model.register_forward_pre_hook(count)


def killed(build, step, folder):
    trainer = build()
    kill_at_step(trainer, step)
    with pytest.raises(Killed):
        trainer.run(folder)


def assert_same(trainer, expected):
    assert trainer.rows == expected.rows
    assert pa.Table.from_pylist(trainer.rows).schema == pa.Table.from_pylist(expected.rows).schema
    for ours, theirs in zip(trainer.optimizer.parameters, expected.optimizer.parameters, strict=True):
        assert torch.equal(ours, theirs)


def states(folder):
    return sorted(folder.glob("state-*"))


def test_a_killed_run_loses_at_most_a_twentieth_and_ends_the_same(build, tmp_path):
    undisturbed = build()
    undisturbed.run(None)
    for step in (5, 3, 24):  # counted from where each run resumes: in steps 5, 7 and 30
        killed(build, step, tmp_path)
    resumed, taken = build(), []
    for leaf in resumed.optimizer.parameters:
        leaf.data.fill_(9.0)
    resumed.model.register_forward_pre_hook(lambda *_: taken.append(1))
    resumed.run(tmp_path)
    assert len(taken) == 2 * (40 - 30)
    assert_same(resumed, undisturbed)


def test_a_run_killed_in_its_first_step_starts_over(build, tmp_path):
    undisturbed = build()
    undisturbed.run(None)
    killed(build, 0, tmp_path)
    assert not states(tmp_path)
    resumed = build()
    resumed.run(tmp_path)
    assert_same(resumed, undisturbed)


@pytest.mark.parametrize("damage", ["flipped", "cut off", "empty"])
@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_checkpoint_is_discarded_with_a_line(damage, damaged, tiny_llama, tokens, tmp_path, caplog):
    module, options, _ = METHODS["leap"]

    def build():
        return module.trainer(Job(tiny_llama(blocks=1), options, Fraction("0.4"), 3, tokens[:8]))

    undisturbed = build()
    undisturbed.run(None)
    killed(build, 11, tmp_path)
    assert len(states(tmp_path)) == 2
    for folder in states(tmp_path)[-damaged:]:
        path = sorted(folder.glob("*.safetensors"))[-1]
        data = bytearray(path.read_bytes())
        data[len(data) - 100] ^= 1
        path.write_bytes({"flipped": data, "cut off": data[: len(data) // 2], "empty": b""}[damage])
    resumed, taken = build(), []
    resumed.model.register_forward_pre_hook(lambda *_: taken.append(1))
    with caplog.at_level("WARNING"):
        resumed.run(tmp_path)
    assert len(taken) == 2 * (40 - (8 if damaged == 1 else 0))
    assert caplog.text.count("discarded the checkpoint") == damaged
    assert_same(resumed, undisturbed)


def test_a_checkpoint_that_was_being_written_is_not_taken_for_one(tmp_path):
    (tmp_path / ".state.tmp").mkdir()
    (tmp_path / ".state.tmp" / "half.safetensors").write_bytes(b"half")
    assert checkpoint.newest(tmp_path) is None


def test_a_checkpoint_gives_back_every_bit_and_only_two_are_kept(tmp_path):
    tensors = {"a": torch.randn(3, 5).bfloat16(), "b": torch.randn(4).double(), "c": torch.tensor([[1.0, -0.0]])}
    for done in range(5):
        checkpoint.save(tmp_path, done, tensors | {"done": torch.tensor([done])})
    assert checkpoint.newest(tmp_path) == 4
    found = {name: torch.full_like(tensor, 9) for name, tensor in tensors.items()} | {"done": torch.tensor([0])}
    checkpoint.load(tmp_path, 4, found)
    assert int(found.pop("done")) == 4
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )
    assert found["c"].signbit().any()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_an_error_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file cannot hold the checkpoint"):
        checkpoint.save(tmp_path / "file", 1, {"a": torch.zeros(1)})


def listed_by_nobody(folder):
    (folder / "more.safetensors").write_bytes(b"x")


def emptied(folder):
    write_json(folder / checkpoint.DIGESTS, {})


def no_mapping(folder):
    (folder / checkpoint.DIGESTS).write_text("[]")


def one_forgotten(folder):
    digests = read_sealed(folder / checkpoint.DIGESTS)
    write_sealed(folder / checkpoint.DIGESTS, dict(list(digests.items())[1:]))


@pytest.mark.parametrize("damage", [listed_by_nobody, emptied, no_mapping, one_forgotten])
def test_the_list_of_a_checkpoint_is_checked_like_its_files(damage, tmp_path, caplog):
    """torch reads every file of the folder, whatever the list says."""
    checkpoint.save(tmp_path, 3, {"one.exp_avg": torch.ones(2), "two.exp_avg": torch.zeros(2)})
    assert checkpoint.newest(tmp_path) == 3
    damage(tmp_path / "state-00000003")
    assert checkpoint.newest(tmp_path) is None
    assert caplog.text.count("discarded the checkpoint") == 1
