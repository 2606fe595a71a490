"""What a model's card on the hub says of its licence."""

from __future__ import annotations

from leap_repro.hub.repository import Repository, endpoint


def licence_of(repository: Repository) -> str | None:
    """The licence as the card's front matter has it; None if it names none, or if the hub cannot be asked now: nothing
    but the card of an export depends on it."""
    from huggingface_hub import HfApi

    try:
        info = HfApi(endpoint=endpoint()).model_info(repository.id, revision=repository.revision, timeout=10)
        return info.card_data.license if info.card_data else None
    except Exception:  # of the network, of the hub, or of a card that is no YAML
        return None
