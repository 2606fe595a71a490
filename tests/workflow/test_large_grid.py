"""A grid of thousands of cells: no job's command line grows with it, for Linux takes 131,072 bytes of one argument."""

import pandas as pd
from scratch import REPOSITORY, checkout_of, edit, snakemake, write_inputs

SEEDS = 3500
LIMIT = 131_072


def test_the_table_of_times_is_made_of_three_and_a_half_thousand_cells(tmp_path):
    folder = checkout_of(tmp_path / "large", REPOSITORY / "tests/config/tiny.yaml")
    write_inputs(folder)
    edit(folder, "config.yaml", "    methods: [dense, wanda, admm, leap]", "    methods: [wanda]")
    edit(folder, "config.yaml", "    extended: [admm-as-released]\n", "")
    edit(folder, "config.yaml", "    seeds: [0]", f"    seeds: {list(range(SEEDS))}")
    cells = [f"mini/wanda/0.5/{seed}" for seed in range(SEEDS)]
    assert 2 * len(" ".join(cells)) > LIMIT
    for stage in ("prune", "harden", "evaluate"):
        for cell in cells:
            benchmark = folder / f"results/tiny/benchmarks/{stage}/{cell}.tsv"
            benchmark.parent.mkdir(parents=True, exist_ok=True)
            benchmark.write_text("s\tmax_rss\tcpu_time\n2.0\t100\t2.0\n")
    output = snakemake(folder, "results/tiny/tables/time.csv", "--allowed-rules", "build_time_table")
    (command,) = [line for line in output.splitlines() if "leap_repro.report.times" in line]
    assert len(command) < 1000
    table = pd.read_csv(folder / "results/tiny/tables/time.csv")
    assert table["jobs"].tolist() == [SEEDS] * 3
    assert table["total"].tolist() == [2.0 * SEEDS] * 3
