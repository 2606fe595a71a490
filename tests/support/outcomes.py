"""What a call with odd input comes to: its result, or one sentence for the user; any other exception is a fault."""

from leap_repro.errors import UserError


def outcome(call, *arguments):
    """(result, None), or (None, sentence) of a UserError, which must be one line."""
    try:
        return call(*arguments), None
    except UserError as error:
        sentence = str(error)
    assert sentence
    assert "\n" not in sentence
    return None, sentence
