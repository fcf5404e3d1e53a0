"""Adapters that learn at several sites whose data stays where it is."""
