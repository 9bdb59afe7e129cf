"""Overload: how many requests a process works on at once, and which of them wait or are turned away.

It asks nothing about the sender, only how much the request matters and how busy the process is. (Who sends a request,
and whether they have used up their rate limit, is asked later, in `app.platform.http.admission`.)
"""

from app.platform.resilience.overload.criticality import Criticality, CriticalityRule, criticality, criticality_of
from app.platform.resilience.overload.gate import Gate, Refused
from app.platform.resilience.overload.limit import AdaptiveLimit
from app.platform.resilience.overload.middleware import OverloadMiddleware

__all__ = [
    "AdaptiveLimit",
    "Criticality",
    "CriticalityRule",
    "Gate",
    "OverloadMiddleware",
    "Refused",
    "criticality",
    "criticality_of",
]
