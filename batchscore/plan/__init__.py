"""Everything that can fail before a worker starts."""

from batchscore.plan.plan import Plan, make_plan, placed, plan_facts, share_out
from batchscore.plan.work import Work, keeping_kernels, scored_as, settle

__all__ = [
    "Plan",
    "Work",
    "keeping_kernels",
    "make_plan",
    "placed",
    "plan_facts",
    "scored_as",
    "settle",
    "share_out",
]
