"""Profiles of columns: mergeable, canonical statistics made in the scoring pass."""
