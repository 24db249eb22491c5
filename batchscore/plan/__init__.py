"""Everything that can fail before a worker starts."""

from batchscore.plan.plan import Plan, make_plan, plan_facts
from batchscore.plan.work import Work, keeping_kernels, scored_as, settle
from batchscore.plan.worker_count import placed, share_out

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
