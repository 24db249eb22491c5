"""Everything that can fail before a worker starts."""

from batchscore.plan.plan import Plan, make_plan, plan_facts, share_out
from batchscore.plan.work import Work, settle

__all__ = ["Plan", "Work", "make_plan", "plan_facts", "settle", "share_out"]
