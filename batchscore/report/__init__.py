"""The report of a run or a comparison: one HTML page that needs nothing but itself."""

from batchscore.report.column_list import Compared
from batchscore.report.page import make_report
from batchscore.report.past import RUNS

__all__ = ["RUNS", "Compared", "make_report"]
