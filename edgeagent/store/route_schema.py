"""What the request log knows of routes (serving/routes.py)."""

from __future__ import annotations

COLUMNS = """
alter table request add column route_name text;  -- sent in place of a model; null: a model or none
alter table request add column rule text;        -- the rule that matched
"""
