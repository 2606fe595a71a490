"""docs/library.md runs, word for word."""

import re

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_page_runs_from_its_first_line_to_its_last(project, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (project / "docs/library.md").read_text(encoding="utf-8")
    script = "\n".join(BLOCK.findall(page))
    exec(compile(script, "docs/library.md", "exec"), {"__name__": "page"})
    said = capsys.readouterr().out
    assert "98,304 of 196,608 weights stay: sparsity 0.5000" in said
    assert "LEAP" in said
    assert (tmp_path / "my-pruned-model/README.md").is_file()
