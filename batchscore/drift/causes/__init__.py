"""What may lie behind a column's change, in words: a unit, a renamed category, a sentinel."""
