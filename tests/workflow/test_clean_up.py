"""Files that are deleted on request are missed by nobody: nothing runs again for them, and what wants one says so."""

import json

from scratch import checksums, edit, planned, snakemake

SHARD = "results/tiny/calibration/mini/mask_training/0"
LEAP = "mini/leap/0.5/0"


def test_after_cleaning_up_there_is_nothing_to_do_and_a_shard_comes_back_alone(checkout):
    before = checksums(checkout)
    edit(checkout, "config.yaml", "    threads: 1\n", "    threads: 1\n    clean_up: [tokens, logits]\n")
    assert planned(checkout) == {"clean_up": 1, "all": 1}
    snakemake(checkout)
    deleted = json.loads((checkout / "results/tiny/cleaned/mini.json").read_text())
    assert set(deleted) == {"calibration/mini/mask_training/0", f"prune/{LEAP}"}
    gone = before.keys() - checksums(checkout).keys()
    assert {path.partition("/payload/")[0] for path in gone} == set(deleted)
    assert planned(checkout) == {}

    leap, harden = (f"results/tiny/{stage}/{LEAP}/manifest.json" for stage in ("prune", "harden"))
    text = snakemake(checkout, "--force", harden, check=False)
    assert (
        f"was deleted by clean_up: to make it again, run `snakemake --cores all --force {leap}`"
        in text + (checkout / f"logs/tiny/harden/{LEAP}.log").read_text()
    )

    snakemake(checkout, "--force", f"{SHARD}/manifest.json")
    shard = {path: digest for path, digest in before.items() if path.startswith("calibration/mini/mask_training/0/")}
    assert shard.items() <= checksums(checkout).items()
    assert "prune" not in planned(checkout)
