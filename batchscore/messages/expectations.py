"""What pydantic expected of a value, in the words of this package's messages."""

from __future__ import annotations

from typing import Any

_PHRASES = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "int_type": "an integer",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
    "too_short": "a list that is not empty",
    "tuple_type": "a list",
    "union_tag_invalid": "{discriminator} to be one of {expected_tags}",
    "union_tag_not_found": "a mapping with the key {discriminator}",
}


def expectation(detail: Any) -> str:
    """Returns what was expected, such as `a number`; pydantic's own words for a rare kind.

    Args:
        detail: One of the `errors()` of a `ValidationError`.
    """
    phrase = _PHRASES.get(detail["type"])
    if phrase is None:
        return str(detail["msg"]).removeprefix("Input should be ")
    return phrase.format_map(detail.get("ctx", {}))
