"""What pages say of the learning rate is what the published runs and the benchmark say."""

from pathlib import Path

import pandas as pd

TOP = Path(__file__).resolve().parents[3]


def test_pages_say_what_the_papers_rate_does_at_500_steps():
    """Both leads over ADMM are those of the two models on which the line ran, with its one seed."""
    results = pd.read_parquet(TOP / "figures/miniature/extended/results.parquet")
    averages = results.query("task == 'average' and sparsity_target == 0.6 and seed == 0")
    averages = averages.pivot(index="model", columns="method", values="value").dropna(subset="leap-rate-1e-3")
    assert len(averages) == 2
    paper, ours = ((averages[name] - averages["admm"]).mean() for name in ("leap-rate-1e-3", "leap"))
    for page in ("docs/methods/leap.md", "docs/fidelity.md"):
        text = (TOP / page).read_text(encoding="utf-8")
        assert f"+{paper:.2f} points" in text
        assert f"+{ours:.2f}" in text
    assert f"1e-3 leads ADMM by {paper:.2f} points, 3e-3 by {ours:.2f}" in (TOP / "config.yaml").read_text("utf-8")


def test_the_page_says_where_the_papers_rate_catches_up():
    rates = pd.read_csv(TOP / "benchmarks/learning_rates.csv").set_index(["model", "learning rate", "steps"])
    lost = rates["held-out loss, hardened"]
    page = " ".join((TOP / "docs/methods/leap.md").read_text(encoding="utf-8").split())
    small, large = "qwen2.5-0.5b-mini", "llama3.2-3b-mini"
    for model in (small, large):
        assert lost[model, 0.001, 1500] < lost[model, 0.003, 500] < lost[model, 0.001, 500]
    assert "1,500 steps at 1e-3, which allow as large a change of a logit, have a lower held-out loss than" in page
    assert "than 500 at 3e-3 on both models" in page
    assert lost[small, 0.001, 1000] < lost[small, 0.003, 500]
    assert lost[large, 0.001, 1000] > lost[large, 0.003, 500]
    assert f"1,000 are enough on {small} and not on {large}" in page
