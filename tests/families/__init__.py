"""The cases of tests/cases.py, a module a family."""
