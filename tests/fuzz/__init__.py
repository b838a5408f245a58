"""Fuzzing of everything that reads a user's file; see harness.py."""
