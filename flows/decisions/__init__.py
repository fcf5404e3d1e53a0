"""Decisions: facts in, a decision with its reasons out; only `facts` reads the database."""
