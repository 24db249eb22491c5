"""Everything that can fail before a worker starts."""

from batchscore.plan.plan import Plan, make_plan, plan_facts

__all__ = ["Plan", "make_plan", "plan_facts"]
