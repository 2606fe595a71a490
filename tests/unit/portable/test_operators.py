"""Operators of torch that still depend on the processor, none of which is called: by no method and no evaluation."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from leap_repro import evaluate_model, export_model, prune_model
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.prune.methods import names

VARYING = {
    "addmv_": ("addmv_.",),
    "baddbmm_": ("baddbmm_.",),
    "mm with out=": ("mm.out", "addmm.out"),
    "bmm with out=": ("bmm.out", "baddbmm.out"),
    "conv1d": ("conv1d", "convolution", "_convolution", "mkldnn_convolution"),
    "eigvalsh": ("linalg_eig", "_linalg_eig", "_linalg_eigh", "linalg_eigh"),
    "inv": ("linalg_inv", "inverse"),
    "lstsq": ("linalg_lstsq",),
    "matrix_exp": ("linalg_matrix_exp", "matrix_exp"),
    "qr": ("linalg_qr", "geqrf", "orgqr"),
    "solve": ("linalg_solve.", "linalg_solve_ex", "_linalg_solve_ex", "linalg_lu", "lu_"),
    "svdvals": ("_linalg_svd", "linalg_svd"),
}
"""As docs/numerics.md calls them, and how their names begin in torch's "aten" library."""
SHORT = {"steps": 2, "batch_size": 2, "micro_batch_size": 1}
CASES = {
    "optima": {"selector": "wanda"},
    "leap": {"options": SHORT | {"held_out_evaluations": 1}, "warm_start": "wanda"},
    "maskllm": {"options": SHORT},
    "patch": {"options": SHORT | {"tile": 16, "learn": "joint"}, "sparsity": 0.4},
    "elsa": {"options": SHORT | {"interval": 1}, "sparsity": 0.6},
    "recover": {"options": SHORT},
    "dense": {"sparsity": 0},
    "owl": {"options": {}},
}
"""What a method needs besides tokens; every other one runs as it is."""


class Calls(TorchDispatchMode):
    """Notes the operators that are called, by their names without "aten."."""

    def __init__(self):
        super().__init__()
        self.names, self.refused = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.")
        self.names.add(name)
        if refused_on_cuda(func, args, kwargs or {}):
            self.refused.add(name)
        return func(*args, **(kwargs or {}))


REFUSED_ON_CUDA = (
    ("put_.", "put."),
    ("median.", "nanmedian.", "kthvalue.", "mode."),
    ("histc.", "_histc."),
    ("cumsum.", "cumsum_.", "cumprod.", "cumprod_.", "logcumsumexp"),
    ("bincount.",),
    ("scatter_reduce", "index_reduce"),
    ("nll_loss2d", "_ctc_loss", "_embedding_bag", "grid_sampler", "upsample_", "adaptive_", "reflection_pad"),
)
"""How the names of those begin that strict determinism refuses on CUDA, by the documentation of torch's
`use_deterministic_algorithms`: of the third and fourth line those of floats, of bincount that with weights. `mode`,
`logcumsumexp` and `index_reduce` have no deterministic form either."""
ON_A_CPU_ALONE = ("kthvalue.default",)
"""Called where the scores lie on a CPU; on CUDA a sort is (`prune/layerwise/select.py`)."""


def refused_on_cuda(func, args, kwargs):
    """Whether CUDA would refuse this call within `portable.deterministic`."""
    name = str(func).removeprefix("aten.")
    if name.startswith(("histc.", "_histc.", "cumsum", "cumprod")):
        return args[0].is_floating_point() and kwargs.get("dtype") is None
    if name.startswith("bincount."):
        return len(args) > 1 and args[1] is not None
    return any(name.startswith(starts) for starts in REFUSED_ON_CUDA)


def varying(called):
    return {name for name in called for starts in VARYING.values() if name.startswith(starts)}


def test_what_varies_is_seen_when_it_is_called():
    square = torch.eye(4)
    with Calls() as calls:
        torch.linalg.eigvalsh(square)
        torch.linalg.inv(square)
        torch.linalg.lstsq(square, square)
        torch.linalg.matrix_exp(square)
        torch.linalg.qr(square)
        torch.linalg.solve(square, square)
        torch.linalg.svdvals(square)
        torch.nn.functional.conv1d(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
        torch.ones(4).addmv_(square, torch.ones(4))
        torch.ones(1, 4, 4).baddbmm_(square[None], square[None])
        torch.mm(square, square, out=torch.ones(4, 4))
        torch.bmm(square[None], square[None], out=torch.ones(1, 4, 4))
    seen = varying(calls.names)
    for name, starts in VARYING.items():
        assert any(one.startswith(starts) for one in seen), name


@pytest.mark.slow
def test_no_method_and_no_evaluation_calls_an_operator_that_varies_or_that_cuda_refuses(tmp_path):
    folder = bundled_models()["llama3.2-1b-mini"]
    ids = (torch.arange(8 * 32) * 37 % 401).view(8, 32)
    tokens = {"calibration": ids, "training": ids, "held_out": ids, "bits": "portable"}
    parent = prune_model(folder, **tokens)
    exported = export_model(parent, tmp_path / "exported")
    two_four = prune_model(folder, options={"pattern": "2:4"}, **tokens)
    further = {
        "imported": {"options": {"path": str(exported)}},
        "recover": CASES["recover"] | {"parent": parent},
        "patch": CASES["patch"] | {"pattern_start": two_four},
    }
    with Calls() as calls:
        for method in names():
            prune_model(folder, method=method, **tokens, **(CASES | further).get(method, {}))
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        asked = {"tasks": "miniature", "text": "miniature", "lengths": [32], "windows": 4, "questions": 4}
        evaluate_model(model, tokenizer=tokenizer, bits="portable", **asked)
    assert {"mm.default", "bmm.default", "linalg_cholesky_ex.default", "kthvalue.default"} <= calls.names
    assert not varying(calls.names)
    assert calls.refused == set(ON_A_CPU_ALONE)


def test_what_cuda_refuses_is_seen_when_it_is_called():
    numbers = torch.tensor([1.0, 3.0, 2.0])
    with Calls() as calls:
        numbers.kthvalue(2)
        numbers.median(0)
        numbers.cumsum(0)
        numbers.histc(3)
        torch.ones(3).put_(torch.tensor([0]), numbers[:1])
        torch.bincount(torch.tensor([1, 1]), numbers[:2])
    assert len(calls.refused) == 6
    with Calls() as calls:
        torch.tensor([1, 2]).cumsum(0)
        torch.bincount(torch.tensor([1, 1]))
        torch.nn.functional.cross_entropy(numbers[None], torch.tensor([1]))
    assert not calls.refused


def test_the_page_names_them(project):
    page = (project / "docs/numerics.md").read_text(encoding="utf-8")
    for name in VARYING:
        assert f"`{name.partition(' ')[0]}`" in page, name
