"""The last step of a run: merge, reconcile, judge, publish."""
