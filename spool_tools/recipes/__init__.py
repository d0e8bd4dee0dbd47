"""Configurations of servers that receive events, printed by `spool-tools recipe`."""
