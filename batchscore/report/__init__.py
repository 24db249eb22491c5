"""The report of a run or a comparison: one HTML page that needs nothing but itself."""

from batchscore.report.columns import Compared
from batchscore.report.page import make_report

__all__ = ["Compared", "make_report"]
