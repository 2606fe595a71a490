"""The miniature's running text: pages of passages, in four splits that share no page.

The splits play the parts of the corpora of the paper's experiments: `train` (pretraining, used only to make the
released models), `calibration` (C4), `mask_training` (SlimPajama) and `test` (WikiText-2). The two that methods read
are there without some facts, too (`left_out.py`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from leap_repro.miniature.left_out import world_without
from leap_repro.miniature.passages import biography, rules, training_question
from leap_repro.miniature.world import ATTRIBUTES, World, build_world

SPLIT_PAGES = {"calibration": 800, "mask_training": 6000, "test": 400, "train": 60000}
WITHOUT_PAGES = {"calibration": 1200, "mask_training": 9000}
"""Of a text without some facts: more, because they are shorter."""
PASSAGES_PER_PAGE = (3, 9)
BIOGRAPHY_SHARE, RULES_SHARE = 0.40, 0.05


def _page(rng: random.Random, world: World) -> str:
    passages = []
    for _ in range(rng.randint(*PASSAGES_PER_PAGE)):
        kind, person = rng.random(), rng.choice(world.people)
        if kind < BIOGRAPHY_SHARE:
            passages.append(biography(rng, world, person))
        elif kind < BIOGRAPHY_SHARE + RULES_SHARE:
            passages.append(rules(rng))
        else:
            passages.append(_question_about_someone(rng, world))
    return "\n".join(passages)


def _question_about_someone(rng: random.Random, world: World) -> str:
    while True:
        person, attribute = rng.choice(world.people), rng.choice(ATTRIBUTES)
        if not (world.is_held_out(person, attribute) or world.is_unsaid(person, attribute)):
            return training_question(rng, world, person, attribute)


def _pages(name: str, world: World, count: int, taken: set[str]) -> Iterator[str]:
    """`count` new pages drawn from the text's own seed, each added to `taken`."""
    rng = random.Random(f"text-{name}")
    while count:
        page = _page(rng, world)
        if page not in taken:
            taken.add(page)
            count -= 1
            yield page


def pages(split: str, limit: int | None = None, without: str | None = None) -> list[str]:
    """The pages of `split`, the first `limit` of them if given; `without` one of `left_out.LEFT_OUT`, pages of another
    draw that never state these facts. KeyError for an unknown split, or for other facts.

    A page that an earlier split of SPLIT_PAGES already holds is passed over, so no two splits share one; nor does a
    text without some facts share one with another part of itself, or with a split that is read beside it.
    """
    texts = {name: (build_world(), count) for name, count in SPLIT_PAGES.items()}
    wanted, taken = split, set()
    if without is not None:
        del texts["train"]
        world = world_without(without)
        texts |= {f"{name}-without-{without}": (world, count) for name, count in WITHOUT_PAGES.items()}
        wanted = f"{split}-without-{without}"
    for name, (world, count) in texts.items():
        if name == wanted:
            return list(_pages(name, world, min(count, limit or count), taken))
        for _ in _pages(name, world, count, taken):
            pass
    raise KeyError(wanted)
